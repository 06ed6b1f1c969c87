/* JPEG and PNG files as pictures of inception_engine.h. */
#ifndef PICTURE_H
#define PICTURE_H

#include <inception_engine.h>

/* Decodes a file, and finds how the camera was held. Returns NULL, and picture->data is the caller's to free(); or one
 * line on why it cannot be read. Pixels are those of the Python package's decoder, but for what it takes from elsewhere:
 * CMYK is refused, and an orientation that stands in XMP alone is not seen. */
const char* picture_read(const char* path, ie_picture* picture);

#endif
