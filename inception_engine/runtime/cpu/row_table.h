// Where the input of each row of a convolution's tile lies, tap by tap. Behind tile_kernels.h.

namespace ie::cpu {
namespace {

// Fills the table for rows [first, first + rows) of the output, run by run: a run lies in one line of the
// image.
void fill_table(const OpView& view, const Scratch& scratch, size_t first, size_t rows) {
  const OpRecord& op = *view.record;
  const size_t step = op.stride_w * view.in_pitch;
  memset(scratch.inside, 0, rows * sizeof(uint64_t));
  for (uint32_t kh = 0, tap = 0; kh < op.kernel_h; ++kh) {
    for (uint32_t kw = 0; kw < op.kernel_w; ++kw, ++tap) {
      // The output columns whose pixel lies in the image.
      const uint32_t before = op.pad_left > kw ? op.pad_left - kw : 0;
      const uint32_t until = op.in_w + op.pad_left > kw ? op.in_w + op.pad_left - kw : 0;
      const size_t first_x = (before + op.stride_w - 1) / op.stride_w;
      const size_t last_x = (until + op.stride_w - 1) / op.stride_w;
      const uint64_t bit = uint64_t(1) << smaller(tap, 63);
      const void** __restrict entry = scratch.table + tap * rows;
      uint64_t* __restrict inside = scratch.inside;
      size_t out_line = first / op.out_w, x = first % op.out_w;  // lines of all images
      for (size_t rest = rows, run; rest > 0; rest -= run, entry += run, inside += run, ++out_line, x = 0) {
        run = op.out_w - x < rest ? op.out_w - x : rest;
        const size_t image = out_line / op.out_h;
        const size_t y = out_line % op.out_h * op.stride_h + kh - op.pad_top;  // above the image: huge
        size_t begin = first_x > x ? first_x - x : 0, end = last_x > x ? last_x - x : 0;
        if (end > run) end = run;
        if (begin >= end || y >= op.in_h) begin = end = 0;
        for (size_t i = 0; i < begin; ++i) entry[i] = scratch.zeros;
        for (size_t i = end; i < run; ++i) entry[i] = scratch.zeros;
        if (begin == end) continue;
        const size_t in_x = (x + begin) * op.stride_w + kw - op.pad_left;
        const Element* in =
            static_cast<const Element*>(view.in) + ((image * op.in_h + y) * op.in_w + in_x) * view.in_pitch;
        for (size_t i = begin; i < end; ++i) {
          entry[i] = in + (i - begin) * step;
          inside[i] |= bit;
        }
      }
    }
  }
}

}  // namespace
}  // namespace ie::cpu
