"use strict";

/*
The network in the browser: a worker, so that the page stays awake and can end a computation. onnxruntime-web, `ort`, stands
before it in the same script. The answers are those of segnet/inference/answers.py for a picture that is predicted whole.

A message is answered by one:
{kind: "start", settings, glue, wasm, network} by {kind: "started"}. glue and wasm are files of onnxruntime-web, network a list
of ArrayBuffers that follow each other in the .onnx file.
{kind: "predict", file} by {kind: "answer", width, height, image, mask, confidence, uncertainty, restored, seconds}, as page.js
describes them.
Where something fails, any by {kind: "fault", message}, one line to show.

An image is {channels, height, width, values}: a Float32Array, one channel after the other, row by row.
*/

let settings; // see `settings_of` in folder.py
let session; // of onnxruntime-web

async function start({ settings: given, glue, wasm, network }) {
  settings = given;
  ort.env.wasm.numThreads = 1; // more need headers that neither a folder nor a simple server sends
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([glue], { type: "text/javascript" })) };
  session = await ort.InferenceSession.create(joined(network), { executionProviders: ["wasm"] });
  return { kind: "started" };
}

function joined(buffers) {
  const whole = new Uint8Array(buffers.reduce((sum, buffer) => sum + buffer.byteLength, 0));
  let place = 0;
  for (const buffer of buffers) {
    whole.set(new Uint8Array(buffer), place);
    place += buffer.byteLength;
  }
  return whole;
}

async function answer({ file }) {
  const bitmap = await decode(file);
  const { width, height } = bitmap;
  const fault = faultOfSize(width, height);
  if (fault) throw new Error(`${file.name}: ${fault} – use segnet predict, or a smaller picture`);
  const pixels = pixelsOf(bitmap);
  if (pixels.data.some((value, place) => (place & 3) === 3 && value !== 255)) {
    throw new Error(`${file.name}: has transparent pixels, whose colours browsers change – save it without transparency`);
  }
  const image = imageOf(pixels);
  const begin = performance.now();
  const mean = await meanOverViews(image);
  const found = settings.task === "denoise" ? restored(mean) : maps(mean);
  return { kind: "answer", width, height, image: bitmap, ...found, seconds: (performance.now() - begin) / 1000 };
}

/* From a file to an image */

// The first frame of a picture, upright by its EXIF orientation, its colours as stored.
async function decode(file) {
  const start = new Uint8Array(await file.slice(0, 26).arrayBuffer());
  const isPng = [137, 80, 78, 71].every((byte, place) => start[place] === byte);
  const isDeep = isPng && start[24] === 16;
  if (isDeep) throw new Error(`${file.name}: more than 8 bits a band – use segnet predict, or convert it to 8 bits`);
  const asStored = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
  try {
    return await createImageBitmap(file, asStored);
  } catch {
    const remedy = "use JPEG, PNG, WebP, BMP or GIF, or segnet predict";
    throw new Error(`${file.name}: not a picture that this browser can read – ${remedy}`);
  }
}

// Why a picture is too large; empty where it is not.
function faultOfSize(width, height) {
  const { side, pixels } = settings.largest;
  const found = `${width} × ${height} pixels, more than the`;
  if (Math.max(width, height) > side) return `${found} ${side} a side that this page takes`;
  return width * height > pixels ? `${found} ${pixels.toLocaleString("en")} that this page takes` : "";
}

// The R, G, B, A of a picture.
function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  const drawing = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  drawing.drawImage(bitmap, 0, 0);
  return drawing.getImageData(0, 0, width, height);
}

// The channels that the network sees: R, G, B, or the luma as Pillow computes it.
function imageOf({ data, width, height }) {
  const [channels, size] = [settings.channels, width * height];
  const values = new Float32Array(channels * size);
  for (let i = 0; i < size; i++) {
    const [red, green, blue] = [data[4 * i], data[4 * i + 1], data[4 * i + 2]];
    if (channels === 1) {
      values[i] = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16;
    } else {
      values[i] = red;
      values[size + i] = green;
      values[2 * size + i] = blue;
    }
  }
  return { channels, height, width, values };
}

/* The network, at all scales and in all views */

const VIEWS = {
  none: [[0, 0, 0]], // whether rows are mirrored, columns are mirrored, and both are then exchanged
  horizontal: [[0, 0, 0], [0, 1, 0]],
  dihedral: [0, 1, 2, 3, 4, 5, 6, 7].map((bits) => [(bits >> 2) & 1, (bits >> 1) & 1, bits & 1]),
};

// What the network says of an image, at its size: probabilities of a segmentation, else values; averaged over scales and views.
async function meanOverViews(image) {
  const views = VIEWS[settings.flip];
  let total = null;
  for (const scale of settings.scales) {
    for (const [rows, columns, turned] of views) {
      const mirrored = mirror(image, rows, columns);
      const seen = turned ? transpose(mirrored) : mirrored;
      const outputs = resize(await outputsOf(zoomed(seen, scale)), seen.height, seen.width, false);
      const found = mirror(turned ? transpose(outputs) : outputs, rows, columns);
      if (settings.task !== "denoise") softmax(found);
      if (total) total.values.forEach((value, place) => (total.values[place] = value + found.values[place]));
      total ??= found;
    }
  }
  const count = settings.scales.length * views.length;
  if (count > 1) total.values.forEach((value, place) => (total.values[place] = value / count));
  return total;
}

// The network's outputs for an image, before softmax.
async function outputsOf({ channels, height, width, values }) {
  const input = new ort.Tensor("float32", values, [1, channels, height, width]);
  const { logits } = await session.run({ image: input });
  const [, found, rows, columns] = logits.dims;
  return { channels: found, height: rows, width: columns, values: logits.data };
}

function mirror(image, rows, columns) {
  if (!rows && !columns) return image;
  const { height, width } = image;
  return rearranged(image, height, width, (y, x) => (rows ? height - 1 - y : y) * width + (columns ? width - 1 - x : x));
}

function transpose(image) {
  return rearranged(image, image.width, image.height, (y, x) => x * image.width + y);
}

// An image of `height` and `width` whose pixel (y, x) is that at `source(y, x)` of another one.
function rearranged({ channels, values }, height, width, source) {
  const size = height * width;
  const moved = new Float32Array(values.length);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, to++) {
      const from = source(y, x);
      for (let plane = 0; plane < channels * size; plane += size) moved[plane + to] = values[plane + from];
    }
  }
  return { channels, height, width, values: moved };
}

function zoomed(image, scale) {
  if (scale === 1) return image;
  const side = (length) => Math.max(1, roundedToEven(length * scale));
  return resize(image, side(image.height), side(image.width), true);
}

// As Python rounds: a half goes to the even neighbour.
function roundedToEven(value) {
  const below = Math.floor(value);
  return value - below === 0.5 ? below + (below % 2) : Math.round(value);
}

// Bilinear, as torch.nn.functional.interpolate with align_corners=False; with `antialias`, over all pixels that become one.
function resize(image, height, width, antialias) {
  if (image.height === height && image.width === width) return image;
  const wide = transpose(alongRows(transpose(image), height, antialias));
  return alongRows(wide, width, antialias);
}

function alongRows({ channels, height, width, values }, length, antialias) {
  const taps = Array.from({ length }, (_, place) => tapsOf(place, width / length, width, antialias));
  const found = new Float32Array(channels * height * length);
  for (let row = 0; row < channels * height; row++) {
    for (let place = 0; place < length; place++) {
      const [first, weights] = taps[place];
      let sum = 0;
      for (let i = 0; i < weights.length; i++) sum += weights[i] * values[row * width + first + i];
      found[row * length + place] = sum;
    }
  }
  return { channels, height, width: length, values: found };
}

// [first, weights]: the pixels of a row of `length` that make the pixel at `place` of a row that is `factor` times shorter.
function tapsOf(place, factor, length, antialias) {
  const reach = antialias ? Math.max(1, factor) : 1; // of the triangle, pixels to each side
  const centre = factor * (place + 0.5);
  const first = Math.max(0, Math.floor(centre - reach + 0.5));
  const end = Math.min(length, Math.floor(centre + reach + 0.5));
  const weights = [];
  for (let pixel = first; pixel < end; pixel++) weights.push(Math.max(0, 1 - Math.abs(pixel + 0.5 - centre) / reach));
  const sum = weights.reduce((one, other) => one + other, 0);
  return [first, weights.map((weight) => weight / sum)];
}

// Logits to probabilities, in place.
function softmax({ channels, values }) {
  const size = values.length / channels;
  for (let i = 0; i < size; i++) {
    let most = -Infinity;
    for (let place = i; place < values.length; place += size) most = Math.max(most, values[place]);
    let sum = 0;
    for (let place = i; place < values.length; place += size) sum += values[place] = Math.exp(values[place] - most);
    for (let place = i; place < values.length; place += size) values[place] /= sum;
  }
}

/* From the mean to the answer */

// The maps of mean probabilities, with the temperature and the clean-up of the settings.
function maps({ channels, height, width, values }) {
  const size = height * width;
  const [mask, confidence, uncertainty] = [new Uint8Array(size), new Uint8ClampedArray(size), new Uint8ClampedArray(size)];
  const certain = Math.log(Math.max(2, channels));
  const sharp = new Float64Array(channels);
  for (let i = 0; i < size; i++) {
    for (let id = 1; id < channels; id++) if (values[id * size + i] > values[mask[i] * size + i]) mask[i] = id;
    const most = values[mask[i] * size + i];
    let sum = 0;
    for (let id = 0; id < channels; id++) sum += sharp[id] = (values[id * size + i] / most) ** (1 / settings.temperature);
    let entropy = 0;
    for (let id = 0; id < channels; id++) if (sharp[id] > 0) entropy -= (sharp[id] / sum) * Math.log(sharp[id] / sum);
    confidence[i] = 255 / sum; // rounds
    uncertainty[i] = (255 * entropy) / certain;
  }
  const rule = settings.clean_up;
  return {
    mask: cleanUp({ mask, height, width }, rule.min_region, rule.fill_holes),
    confidence: new Uint8Array(confidence.buffer),
    uncertainty: new Uint8Array(uncertainty.buffer),
    restored: null,
  };
}

// A restored image as a picture; grey is repeated.
function restored({ channels, height, width, values }) {
  const size = height * width;
  const picture = new ImageData(width, height);
  for (let i = 0; i < size; i++) {
    for (let band = 0; band < 3; band++) picture.data[4 * i + band] = values[(channels === 1 ? 0 : band * size) + i]; // rounds
    picture.data[4 * i + 3] = 255;
  }
  return { mask: null, confidence: null, uncertainty: null, restored: picture };
}

const ANSWERS = { start, predict: answer };

onmessage = async ({ data }) => {
  try {
    const message = await ANSWERS[data.kind](data);
    postMessage(message, message.image ? [message.image] : []);
  } catch (error) {
    postMessage({ kind: "fault", message: inOneLine(error) });
  }
};

// What is wrong. Where memory is full, onnxruntime-web and WebAssembly say it in words of their own, or throw a number.
function inOneLine(error) {
  const text = String(error?.message ?? error).split("\n")[0];
  const isFull = typeof error === "number" || /bad_alloc|memory|allocat/i.test(text);
  return isFull ? "The picture needs more memory than the browser gives – use a smaller one, or segnet predict" : text;
}
