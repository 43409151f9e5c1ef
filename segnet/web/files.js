"use strict";

// The files that the page makes of an answer, described in page.js.

// For each class id its pixels and the sum of their confidence.
function countPixels({ mask, confidence }) {
  const pixels = new Array(256).fill(0);
  const sums = new Array(256).fill(0);
  for (let i = 0; i < mask.length; i++) {
    pixels[mask[i]] += 1;
    if (confidence) sums[mask[i]] += confidence[i];
  }
  return { pixels, sums };
}

// The columns of areas.csv; the mean probability is one of values in steps of 1/255.
function encodeAreas(name, answer, counts, classes) {
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const parts = findParts(answer);
  const rows = classes.map((own, id) => {
    const pixels = counts.pixels[id];
    const mean = pixels && answer.confidence ? (counts.sums[id] / pixels / 255).toFixed(4) : "";
    const share = Number((pixels / answer.mask.length).toPrecision(8));
    return [quoted(name), quoted(own.name), pixels, share, parts.numbers[id], parts.largest[id], mean].join(",");
  });
  const head = "picture,class,pixels,share,parts,largest_part,mean_probability";
  return new Blob([[head, ...rows, ""].join("\n")], { type: "text/csv" });
}

// For each class id the number of its connected regions and the pixels of the largest; pixels touch by their sides.
function findParts({ mask, width }) {
  const parent = new Int32Array(mask.length); // of each pixel, in a forest with a tree for each region
  const rootOf = (pixel) => {
    while (parent[pixel] !== pixel) {
      parent[pixel] = parent[parent[pixel]];
      pixel = parent[pixel];
    }
    return pixel;
  };
  for (let i = 0; i < mask.length; i++) {
    parent[i] = i % width && mask[i - 1] === mask[i] ? rootOf(i - 1) : i;
    if (i >= width && mask[i - width] === mask[i]) {
      const [a, b] = [rootOf(i), rootOf(i - width)];
      parent[Math.max(a, b)] = Math.min(a, b);
    }
  }
  const sizes = new Int32Array(mask.length);
  for (let i = 0; i < mask.length; i++) sizes[rootOf(i)] += 1;
  const numbers = new Array(256).fill(0);
  const largest = new Array(256).fill(0);
  for (let i = 0; i < mask.length; i++) {
    if (sizes[i]) numbers[mask[i]] += 1;
    largest[mask[i]] = Math.max(largest[mask[i]], sizes[i]);
  }
  return { numbers, largest };
}

// A PNG of the values as they are, with a palette of 256 colours or in grey. A canvas would store their colours in place of them.
async function encodePng({ width, height }, values, palette = null) {
  const rows = new Uint8Array((width + 1) * height); // each row begins with 0: it is not filtered
  for (let y = 0; y < height; y++) rows.set(values.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const packing = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const pixels = new Uint8Array(await new Response(packing).arrayBuffer());
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header.set([8, palette ? 3 : 0], 8); // bits, and the kind of colour
  const chunks = [pngChunk("IHDR", header), ...(palette ? [pngChunk("PLTE", palette)] : []), pngChunk("IDAT", pixels)];
  const signature = new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]);
  return new Blob([signature, ...chunks, pngChunk("IEND", new Uint8Array(0))], { type: "image/png" });
}

function pngChunk(kind, content) {
  const chunk = new Uint8Array(content.length + 12);
  const numbers = new DataView(chunk.buffer);
  numbers.setUint32(0, content.length);
  chunk.set(new TextEncoder().encode(kind), 4);
  chunk.set(content, 8);
  numbers.setUint32(content.length + 8, crc32(chunk.subarray(4, content.length + 8)));
  return chunk;
}

const CRC = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc32(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = CRC[(sum ^ byte) & 255] ^ (sum >>> 8);
  return ~sum >>> 0;
}
