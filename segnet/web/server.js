"use strict";

// `backend` of page.js by HTTP: the server that sent the page computes. docs/serving.md describes what it answers.

let limits; // of the server: {bytes, pixels}

const backend = {
  async describe() {
    const about = await (await reply(fetch("about"))).json();
    limits = about.limits;
    return about;
  },

  async predict(file, { signal, onProgress }) {
    const bitmap = await decoded(file);
    const ticket = newTicket();
    const stop = new AbortController(); // of the questions for the place in the queue
    onProgress("sending");
    const asking = askForPlace(ticket, stop.signal, onProgress);
    try {
      let answer = await planesOf(await send(file, { format: "planes", ticket, picture: bitmap ? 0 : 1 }, signal));
      const fits = bitmap && bitmap.width === answer.width && bitmap.height === answer.height;
      if (bitmap && !fits) answer = await planesOf(await send(file, { format: "planes", picture: 1 }, signal));
      return await resultOf(file, answer, fits ? bitmap : null);
    } finally {
      stop.abort();
      await asking;
    }
  },
};

// The picture as this browser shows it, upright; null for a format that it does not know.
async function decoded(file) {
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return null;
  }
}

function newTicket() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function send(file, options, signal) {
  if (file.size > limits.bytes) {
    throw new Error(`${file.name}: ${file.size.toLocaleString("en")} bytes, more than ${limits.bytes.toLocaleString("en")} – make it smaller`);
  }
  return reply(fetch(`predict?${new URLSearchParams({ name: file.name, ...options })}`, { method: "POST", body: file, signal }));
}

// The response to a request. Rejects with the line of the server where it refuses.
async function reply(request) {
  let response;
  try {
    response = await request;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer – is it still running?");
  }
  if (response.ok) return response;
  const text = await response.text();
  throw new Error(text.trim() || `The server answers ${response.status}`);
}

async function askForPlace(ticket, signal, onProgress) {
  let pause = 150; // milliseconds
  while (!signal.aborted) {
    await new Promise((resolve) => {
      setTimeout(resolve, pause);
      signal.addEventListener("abort", resolve, { once: true });
    });
    pause = Math.min(2 * pause, 1000);
    try {
      const { state, before } = await (await fetch(`queue?ticket=${ticket}`, { signal })).json();
      if (!signal.aborted && (state === "waiting" || state === "computing")) onProgress(state, before);
    } catch {
      // the answer itself says what is wrong
    }
  }
}

// Four bytes, the length of the JSON that follows, and then the planes that it names.
async function planesOf(response) {
  const content = await response.arrayBuffer();
  const length = new DataView(content).getUint32(0, true);
  const answer = JSON.parse(new TextDecoder().decode(new Uint8Array(content, 4, length)));
  let place = 4 + length;
  for (const [name, bands] of answer.planes) {
    const size = answer.width * answer.height * bands;
    answer[name] = new Uint8Array(content, place, size);
    place += size;
  }
  return answer;
}

// RGB or grey values as a picture.
function pictureOf(values, { width, height }) {
  const image = new ImageData(width, height);
  const bands = values.length / (width * height);
  for (let i = 0, from = 0; i < image.data.length; i += 4, from += bands) {
    image.data[i] = values[from];
    image.data[i + 1] = values[from + (bands > 1 ? 1 : 0)];
    image.data[i + 2] = values[from + (bands > 1 ? 2 : 0)];
    image.data[i + 3] = 255;
  }
  return image;
}

async function resultOf(file, answer, bitmap) {
  const { width, height, seconds, mask = null, confidence = null, uncertainty = null } = answer;
  const image = bitmap ?? (await createImageBitmap(pictureOf(answer.image, answer)));
  const restored = answer.restored ? pictureOf(answer.restored, answer) : null;
  const make = async (signal) => (await send(file, { format: "polygons" }, signal)).blob();
  const polygons = { name: "Polygons", suffix: ".geojson", make };
  return { width, height, image, mask, confidence, uncertainty, restored, seconds, downloads: mask ? [polygons] : [] };
}
