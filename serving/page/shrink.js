// Makes large photos smaller before they are sent: a photo of a phone has 5 MB, and the network looks at 0.1 megapixels.

const SMALL_BYTES = 256 * 1024; // What is so small is sent as it is.
const QUALITY = 0.92;

// The bytes to send for a file: those of the file, or a smaller JPEG of the same photo, upright. What the browser cannot
// read is sent as it is: the server reads more formats, or says what is wrong.
export async function forServer(file, imageSize) {
  if (file.size <= SMALL_BYTES || !file.type.startsWith("image/") || file.type === "image/svg+xml") return file;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return file;
  }
  try {
    // Twice what the network needs, on the shorter side: it makes a square of the photo, whatever its shape.
    const scale = (2 * imageSize) / Math.min(bitmap.width, bitmap.height);
    if (scale >= 1) return file;
    const smaller = await jpegOf(await scaled(bitmap, scale));
    return smaller && smaller.size < file.size ? smaller : file;
  } finally {
    bitmap.close();
  }
}

async function scaled(bitmap, scale) {
  const width = Math.round(bitmap.width * scale);
  const height = Math.round(bitmap.height * scale);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // As the pipeline does, where a picture is transparent.
  context.fillRect(0, 0, width, height);
  const small = await createImageBitmap(bitmap, { resizeWidth: width, resizeHeight: height, resizeQuality: "high" });
  context.drawImage(small, 0, 0);
  small.close();
  return canvas;
}

const jpegOf = (canvas) => new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
