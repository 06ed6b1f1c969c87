// Resizing is bilinear with antialiasing: each output pixel is the mean of the input pixels under a triangle, which is as
// wide as one output pixel on either side and never narrower than one input pixel. To give the same bits as Pillow,
// which training, evaluation and the Python package use, it takes the same steps: weights in double, rounded to 22
// binary places; rows first and then columns, each direction rounded to 8 bits; a direction that keeps its size is not
// touched.
#include "preprocess.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

#include "plan.h"

namespace ie {
namespace {

constexpr uint64_t kMaxPixels = 100'000'000;
constexpr int kPlaces = 22;  // of a weight: 32 bits less 8 of the pixel and 2 of headroom

[[noreturn]] void refuse(const std::string& message) { throw Refusal{IE_ERROR_ARGUMENT, message}; }

void check_size(uint64_t width, uint64_t height, const char* when) {
  if (width != 0 && height > kMaxPixels / width) {
    refuse(std::string("a picture ") + when + "of " + std::to_string(width) + " x " + std::to_string(height) +
           " pixels, more than 100,000,000");
  }
}

// A picture upright: pixel (x, y) lies at origin + x * step_x + y * step_y.
struct Upright {
  const uint8_t* origin;
  ptrdiff_t step_x, step_y;
  uint32_t width, height, channels;
};

Upright turn(const ie_picture& picture) {
  if (picture.data == nullptr || picture.width == 0 || picture.height == 0)
    refuse("a picture without pixels");
  if (picture.channels < 1 || picture.channels > 4) refuse("a picture has 1 to 4 channels");
  if (picture.orientation > 8) refuse("the orientation of a picture is 0 to 8");
  check_size(picture.width, picture.height, "");
  const size_t row = size_t{picture.width} * picture.channels;
  if (picture.stride != 0 && picture.stride < row) refuse("the stride of a picture is shorter than its rows");
  if (picture.stride > size_t(PTRDIFF_MAX) / picture.height)
    refuse("the stride of a picture is out of range");
  const ptrdiff_t right = picture.channels, down = ptrdiff_t(picture.stride == 0 ? row : picture.stride);
  const ptrdiff_t last_x = (ptrdiff_t{picture.width} - 1) * right,
                  last_y = (ptrdiff_t{picture.height} - 1) * down;
  // EXIF: which corner of what is stored is the upper left one, and whether rows are columns.
  const uint32_t how = picture.orientation == 0 ? 0 : picture.orientation - 1;
  const bool transposed = how >= 4;
  const bool from_right = how == 1 || how == 2 || how == 6 || how == 7;
  const bool from_bottom = how == 2 || how == 3 || how == 5 || how == 6;
  Upright upright{
      picture.data,    from_right ? -right : right, from_bottom ? -down : down, picture.width, picture.height,
      picture.channels};
  upright.origin += (from_right ? last_x : 0) + (from_bottom ? last_y : 0);
  if (transposed) {
    std::swap(upright.step_x, upright.step_y);
    std::swap(upright.width, upright.height);
  }
  return upright;
}

// One row as grey (1) or R, G, B (3): as Pillow converts.
void read_row(const Upright& picture, uint32_t y, uint32_t channels, uint8_t* row) {
  const uint8_t* from = picture.origin + ptrdiff_t{y} * picture.step_y;
  const bool coloured = picture.channels >= 3;
  for (uint32_t x = 0; x < picture.width; ++x, from += picture.step_x) {
    if (channels == 3) {
      for (uint32_t c = 0; c < 3; ++c) *row++ = from[coloured ? c : 0];
    } else if (coloured) {  // ITU-R 601, in 16 binary places
      *row++ = uint8_t((from[0] * 19595u + from[1] * 38470u + from[2] * 7471u + 0x8000u) >> 16);
    } else {
      *row++ = from[0];
    }
  }
}

// How one direction is resized: the part [first, first + count) of `out` pixels made from `in`.
struct Axis {
  uint32_t in, out, first, count;

  bool kept() const { return in == out; }
  double scale() const { return double(in) / out; }
  double support() const { return std::max(scale(), 1.0); }
  size_t taps() const { return size_t(std::ceil(support())) * 2 + 1; }
};

// The weights of an axis: for each output pixel its first input pixel, their number, and as many weights.
struct Weights {
  size_t taps;
  uint32_t* begin;
  uint32_t* length;
  int32_t* weight;  // (count, taps)

  static size_t bytes(const Axis& axis) {
    return axis.count * (2 * sizeof(uint32_t) + axis.taps() * sizeof(int32_t));
  }
};

Weights weigh(const Axis& axis, std::byte* memory, double* exact) {
  Weights made{axis.taps(), reinterpret_cast<uint32_t*>(memory), nullptr, nullptr};
  made.length = made.begin + axis.count;
  made.weight = reinterpret_cast<int32_t*>(made.length + axis.count);
  const double support = axis.support(), narrow = 1.0 / support;
  for (uint32_t i = 0; i < axis.count; ++i) {
    const double centre = (axis.first + i + 0.5) * axis.scale();
    const int low = std::max(int(centre - support + 0.5), 0);
    const int length = std::min(int(centre + support + 0.5), int(axis.in)) - low;
    double sum = 0.0;
    for (int k = 0; k < length; ++k) {
      const double distance = std::fabs((k + low - centre + 0.5) * narrow);
      exact[k] = distance < 1.0 ? 1.0 - distance : 0.0;
      sum += exact[k];
    }
    int32_t* weight = made.weight + i * made.taps;
    for (int k = 0; k < length; ++k) {
      weight[k] = int32_t(0.5 + (sum != 0.0 ? exact[k] / sum : exact[k]) * (1 << kPlaces));
    }
    made.begin[i] = uint32_t(low);
    made.length[i] = uint32_t(length);
  }
  return made;
}

// The weighted sum of bytes that lie `step` apart. Weights are positive and add up to one, but for their rounding.
uint8_t weighted(const uint8_t* from, size_t step, const int32_t* weight, uint32_t length) {
  int32_t sum = 1 << (kPlaces - 1);
  for (uint32_t k = 0; k < length; ++k, from += step) sum += *from * weight[k];
  return uint8_t(std::min(sum >> kPlaces, 255));
}

// As Python rounds a half: to the even number.
uint32_t half(uint32_t n) { return n / 2 + (n % 4 == 3 ? 1 : 0); }

}  // namespace

void preprocess(const ie_picture& given, const ImageTarget& target, const Allocator& allocator,
                uint8_t* pixels) {
  const uint32_t channels = target.channels;
  if (channels != 1 && channels != 3) {
    refuse("pictures have 1 or 3 channels, the network's input has " + std::to_string(channels));
  }
  const Upright picture = turn(given);
  const uint64_t side = std::max({target.resize, target.height, target.width});
  const uint64_t shorter = std::min(picture.width, picture.height);
  const uint64_t width = side * picture.width / shorter, height = side * picture.height / shorter;
  check_size(width, height, "resized would be one ");
  const Axis across{picture.width, uint32_t(width), half(uint32_t(width) - target.width), target.width};
  const Axis down{picture.height, uint32_t(height), half(uint32_t(height) - target.height), target.height};

  const auto padded = [](size_t bytes) { return (bytes + 63) / 64 * 64; };
  const size_t row_bytes = size_t{target.width} * channels;
  const size_t exact_bytes = padded(std::max(across.taps(), down.taps()) * sizeof(double));
  const size_t across_bytes = padded(Weights::bytes(across)), down_bytes = padded(Weights::bytes(down));
  const size_t line_bytes = padded(size_t{picture.width} * channels);
  const Memory few = allocate(allocator, exact_bytes + across_bytes + down_bytes + line_bytes);
  auto* exact = reinterpret_cast<double*>(few.get());
  const Weights columns = weigh(across, few.get() + exact_bytes, exact);
  const Weights rows = weigh(down, few.get() + exact_bytes + across_bytes, exact);
  auto* line = reinterpret_cast<uint8_t*>(few.get() + exact_bytes + across_bytes + down_bytes);

  // Rows of the picture that the cut-out needs, `across` done.
  const uint32_t last = target.height - 1;
  const uint32_t top = down.kept() ? down.first : rows.begin[0];
  const uint32_t bottom = down.kept() ? down.first + target.height : rows.begin[last] + rows.length[last];
  const Memory between = allocate(allocator, (bottom - top) * row_bytes);
  auto* narrow = reinterpret_cast<uint8_t*>(between.get());
  for (uint32_t y = top; y < bottom; ++y, narrow += row_bytes) {
    read_row(picture, y, channels, line);
    if (across.kept()) {
      std::memcpy(narrow, line + size_t{across.first} * channels, row_bytes);
      continue;
    }
    for (uint32_t x = 0; x < target.width; ++x) {
      const uint8_t* from = line + size_t{columns.begin[x]} * channels;
      for (uint32_t c = 0; c < channels; ++c) {
        narrow[x * channels + c] =
            weighted(from + c, channels, columns.weight + x * columns.taps, columns.length[x]);
      }
    }
  }

  narrow = reinterpret_cast<uint8_t*>(between.get());
  for (uint32_t y = 0; y < target.height; ++y, pixels += row_bytes) {
    if (down.kept()) {
      std::memcpy(pixels, narrow + y * row_bytes, row_bytes);
    } else {
      const uint8_t* from = narrow + (rows.begin[y] - top) * row_bytes;
      for (size_t i = 0; i < row_bytes; ++i) {
        pixels[i] = weighted(from + i, row_bytes, rows.weight + y * rows.taps, rows.length[y]);
      }
    }
    if (target.bgr && channels == 3) {
      for (size_t i = 0; i < row_bytes; i += 3) std::swap(pixels[i], pixels[i + 2]);
    }
  }
}

}  // namespace ie
