// From the pixels of an image to the input of an exported network, for onnxruntime-node, onnxruntime-web and others.
//
//     const about = JSON.parse(fs.readFileSync("lenet5.json"));
//     const input = prepare(pixels, width, height, about);  // Float32Array of 1 * size * size * 3
//     const tensor = new ort.Tensor("float32", input, [1, size, size, 3]);  // or 1, for a grey network
//
// pixels: red, green, blue, and if there are four channels alpha, from 0 to 255, row by row, of an upright image: those
// of a canvas's getImageData(), or of sharp(file, { ignoreIcc: true }).rotate().raw(). (Training ignores colour profiles; a
// canvas applies them, and loses the colours of transparent pixels.)

export function prepare(pixels, width, height, about) {
  const [, size, , depth] = about.input.shape, channels = pixels.length / (width * height);
  if (channels !== 3 && channels !== 4) throw new Error(`expected 3 or 4 numbers a pixel, found ${channels}`);
  const order = depth === 1 ? ["grey"] : about.channel_order === "rgb" ? [0, 1, 2] : [2, 1, 0];
  const border = about.preprocessing.border_colour; // blue, green, red; or grey
  const part = layout(width, height, size, about.resize);
  const result = new Float32Array(size * size * depth);
  for (let c = 0; c < depth; c++) {
    const levelAt = levels(pixels, channels, order[c], about.transparency);
    const plane = new Float64Array(part.height * part.width);
    for (let row = 0, i = 0; row < part.height; row++) {
      const start = (part.top + row) * width + part.left;
      for (let column = 0; column < part.width; column++) plane[i++] = levelAt(start + column);
    }
    const resized = resize(plane, part.height, part.width, part.newHeight, part.newWidth);
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        const row = y + part.offsetY, column = x + part.offsetX;
        const inside = row >= 0 && row < part.newHeight && column >= 0 && column < part.newWidth;
        const level = inside ? resized[row * part.newWidth + column] : Math.round(border[depth === 1 ? 0 : 2 - order[c]]);
        result[(y * size + x) * depth + c] =
          (level / 255 - about.image_normalize_mean[c]) / about.image_normalize_std[c];
      }
    }
  }
  return result;
}

// A function from a pixel's number to its level of one channel, or of grey, on the background of `transparency`.
function levels(pixels, channels, channel, transparency) {
  const isOpaque = channels < 4 || transparency === "drop", background = transparency === "white" ? 255 : 0;
  const level = (i, c) => {
    if (isOpaque) return pixels[i * channels + c];
    const alpha = pixels[i * channels + 3] / 255;
    return roundHalfToEven(alpha * pixels[i * channels + c] + (1 - alpha) * background);
  };
  if (channel !== "grey") return (i) => level(i, channel);
  return (i) => Math.round(0.299 * level(i, 0) + 0.587 * level(i, 1) + 0.114 * level(i, 2));
}

// Which part of the image is resized, to which size, and where the result's upper left corner is in that.
function layout(width, height, size, mode) {
  if (mode === "crop") {
    const cutHeight = Math.min(height, 4 * width), cutWidth = Math.min(width, 4 * height);
    const scale = size / Math.min(height, width);
    const newHeight = roundHalfToEven(cutHeight * scale), newWidth = roundHalfToEven(cutWidth * scale);
    return {
      top: half(height - cutHeight), left: half(width - cutWidth), height: cutHeight, width: cutWidth,
      newHeight, newWidth, offsetY: half(newHeight - size), offsetX: half(newWidth - size),
    };
  }
  const whole = { top: 0, left: 0, height, width };
  if (mode === "stretch") return { ...whole, newHeight: size, newWidth: size, offsetY: 0, offsetX: 0 };
  const scale = size / Math.max(height, width); // pad
  const newHeight = Math.max(1, roundHalfToEven(height * scale)), newWidth = Math.max(1, roundHalfToEven(width * scale));
  return { ...whole, newHeight, newWidth, offsetY: -half(size - newHeight), offsetX: -half(size - newWidth) };
}

const half = (n) => Math.floor(n / 2);

function roundHalfToEven(x) {
  return Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x);
}

// Area interpolation where no side grows and one is more than halved; else bilinear, as OpenCV does both.
function resize(plane, height, width, newHeight, newWidth) {
  const vertical = height / newHeight, horizontal = width / newWidth;
  const isHalved = Math.min(vertical, horizontal) >= 1 && Math.max(vertical, horizontal) > 2;
  const weights = isHalved ? areaWeights : bilinearWeights;
  const narrow = new Float64Array(height * newWidth), result = new Float64Array(newHeight * newWidth);
  weights(width, newWidth).forEach(({ first, shares }, x) => {
    for (let y = 0; y < height; y++) {
      let sum = 0;
      for (let k = 0; k < shares.length; k++) sum += shares[k] * plane[y * width + first + k];
      narrow[y * newWidth + x] = sum;
    }
  });
  weights(height, newHeight).forEach(({ first, shares }, y) => {
    for (let x = 0; x < newWidth; x++) {
      let sum = 0;
      for (let k = 0; k < shares.length; k++) sum += shares[k] * narrow[(first + k) * newWidth + x];
      result[y * newWidth + x] = roundHalfToEven(sum);
    }
  });
  return result;
}

// For each new pixel the first old one that it is made of, and the shares of that and of those that follow.
function areaWeights(length, newLength) {
  const scale = length / newLength;
  return Array.from({ length: newLength }, (_, i) => {
    const start = i * scale, end = Math.min((i + 1) * scale, length), first = Math.floor(start), shares = [];
    for (let old = first; old < end; old++) {
      shares.push((Math.min(end, old + 1) - Math.max(start, old)) / (end - start));
    }
    return { first, shares };
  });
}

function bilinearWeights(length, newLength) {
  return Array.from({ length: newLength }, (_, i) => {
    const place = Math.min(Math.max(((i + 0.5) * length) / newLength - 0.5, 0), length - 1);
    const first = Math.min(Math.floor(place), Math.max(length - 2, 0));
    return { first, shares: length === 1 ? [1] : [1 - (place - first), place - first] };
  });
}
