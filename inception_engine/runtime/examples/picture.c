#include "picture.h"

#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
/* clang-format off */
#include <stdio.h>
#include <jpeglib.h> /* takes the FILE of stdio.h */
#include <jerror.h>
/* clang-format on */

#define MOST_PIXELS 100000000u /* as ie_preprocess takes */

/* The orientation in EXIF data from its TIFF header on, 1 to 8; 1 where there is none. */
static uint32_t orientation_of(const unsigned char* exif, size_t bytes) {
  const int little = bytes >= 8 && exif[0] == 'I';
#define TWO(at) (little ? exif[at] | (size_t)exif[(at) + 1] << 8 : exif[(at) + 1] | (size_t)exif[at] << 8)
  if (bytes < 8) return 1;
  size_t entry = little ? TWO(4) | TWO(6) << 16 : TWO(6) | TWO(4) << 16;
  if (entry > bytes - 2) return 1;
  size_t count = TWO(entry);
  for (entry += 2; count > 0 && entry + 12 <= bytes; --count, entry += 12) {
    if (TWO(entry) != 0x0112) continue;
    const size_t value = TWO(entry + 8);
    return value >= 1 && value <= 8 ? (uint32_t)value : 1;
  }
  return 1;
}

typedef struct escape {
  struct jpeg_error_mgr manager;
  jmp_buf back;
} escape;

static void leave(j_common_ptr jpeg) { longjmp(((escape*)jpeg->err)->back, 1); }

static void warn(j_common_ptr jpeg, int level) {
  if (level < 0 && jpeg->err->msg_code == JWRN_JPEG_EOF) leave(jpeg); /* the rest would be grey */
}

static const char* read_jpeg(FILE* file, ie_picture* picture) {
  struct jpeg_decompress_struct jpeg;
  escape errors;
  unsigned char* volatile pixels = NULL;
  jpeg.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = leave, errors.manager.emit_message = warn;
  if (setjmp(errors.back)) {
    jpeg_destroy_decompress(&jpeg);
    free(pixels);
    return "a damaged JPEG";
  }
  jpeg_create_decompress(&jpeg);
  jpeg_stdio_src(&jpeg, file);
  jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xFFFF);
  jpeg_read_header(&jpeg, TRUE);
  jpeg.out_color_space = jpeg.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB; /* CMYK cannot become that */
  if ((size_t)jpeg.image_width * jpeg.image_height > MOST_PIXELS) leave((j_common_ptr)&jpeg);
  for (jpeg_saved_marker_ptr m = jpeg.marker_list; m != NULL && picture->orientation == 0; m = m->next) {
    if (m->data_length > 6 && memcmp(m->data, "Exif\0", 6) == 0) {
      picture->orientation = orientation_of(m->data + 6, m->data_length - 6);
    }
  }
  jpeg_start_decompress(&jpeg);
  picture->width = jpeg.output_width, picture->height = jpeg.output_height;
  picture->channels = (uint32_t)jpeg.output_components;
  const size_t row = (size_t)picture->width * picture->channels;
  pixels = malloc(row * picture->height);
  if (pixels == NULL) leave((j_common_ptr)&jpeg);
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW line = pixels + row * jpeg.output_scanline;
    jpeg_read_scanlines(&jpeg, &line, 1);
  }
  jpeg_finish_decompress(&jpeg), jpeg_destroy_decompress(&jpeg);
  picture->data = pixels;
  return NULL;
}

static const char* read_png(FILE* file, ie_picture* picture) {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
  png_infop info = png == NULL ? NULL : png_create_info_struct(png);
  if (info == NULL || setjmp(png_jmpbuf(png))) {
    png_destroy_read_struct(&png, &info, NULL);
    return "a damaged PNG";
  }
  png_init_io(png, file);
  png_set_user_limits(png, MOST_PIXELS, MOST_PIXELS); /* of each side */
  png_read_png(png, info, PNG_TRANSFORM_STRIP_16 | PNG_TRANSFORM_EXPAND, NULL);
  png_bytep exif;
  png_uint_32 bytes;
  if (png_get_eXIf_1(png, info, &bytes, &exif) != 0) picture->orientation = orientation_of(exif, bytes);
  picture->width = png_get_image_width(png, info), picture->height = png_get_image_height(png, info);
  picture->channels = png_get_channels(png, info);
  const size_t row = png_get_rowbytes(png, info);
  unsigned char* pixels = malloc(row * picture->height);
  for (uint32_t y = 0; pixels != NULL && y < picture->height; ++y) {
    memcpy(pixels + row * y, png_get_rows(png, info)[y], row);
  }
  png_destroy_read_struct(&png, &info, NULL);
  picture->data = pixels;
  return pixels == NULL ? "no memory for it" : NULL;
}

const char* picture_read(const char* path, ie_picture* picture) {
  memset(picture, 0, sizeof *picture);
  picture->struct_size = sizeof *picture;
  FILE* file = fopen(path, "rb");
  if (file == NULL) return "it cannot be opened";
  unsigned char start[24];
  if (fread(start, 1, sizeof start, file) != sizeof start) start[0] = 0;
  rewind(file);
  const char* wrong = "neither JPEG nor PNG";
  if (start[0] == 0xFF) wrong = read_jpeg(file, picture);
  if (start[0] == 0x89) { /* width and height begin the first chunk */
    const size_t pixels = (size_t)png_get_uint_32(start + 16) * png_get_uint_32(start + 20);
    wrong = pixels > MOST_PIXELS ? "a PNG of more than 100,000,000 pixels" : read_png(file, picture);
  }
  return fclose(file), wrong;
}
