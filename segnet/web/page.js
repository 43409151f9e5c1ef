"use strict";

/*
The page: what is chosen, shown and downloaded. Where the answers are computed, it does not know: the script before this one
defines `backend`, an object of two functions.

backend.describe() -> Promise of {
  title: string,
  about: string,                  one line below the title
  task: "segmentation" | "denoise",
  classes: [{name: string, color: [red, green, blue]}, …],   by class id; empty for denoise
  accept: string,                 of the file input, such as ".png,.jpg"; "" for every file
}

backend.predict(file, {signal, onProgress}) -> Promise of {
  width: number, height: number,  of the upright picture
  image: CanvasImageSource,       the picture, of that size
  mask: Uint8Array | null,        width · height class ids, row by row; 255: no class. null for denoise
  confidence: Uint8Array | null,  the probability of the predicted class, 0..1 as 0..255
  uncertainty: Uint8Array | null, 0 (certain) .. 255: entropy / log K
  restored: ImageData | null,     the picture without its noise; null for segmentation
  seconds: number,                that the network took
  downloads: [{name: string, suffix: string, make: async (signal) => Blob}, …],   files beside those that the page makes itself
}

`predict` rejects with an Error whose message is one line to show, and with the reason of `signal` where that was aborted.
`onProgress(state, number)` takes "loading", of the network, "sending", "waiting" with the number of pictures before this one, or
"computing".
*/

const get = (id) => document.getElementById(id);
const EMPTY = 255; // in a mask: no class
const HEAT = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]]; // of the uncertainty, 0 to 1

let model; // what backend.describe() told
let running = null; // the AbortController of the picture that is computed
let shown = null; // {name, answer, counts} of the picture on the page
let view = ""; // what the stage shows
let opacity = 55; // per cent
let hidden = new Set(); // ids of classes that are switched off

async function compute(file) {
  running?.abort();
  const own = new AbortController();
  running = own;
  const started = performance.now();
  const tick = () => {
    const seconds = Math.floor((performance.now() - started) / 1000);
    get("clock").textContent = seconds ? `${seconds} s` : "";
  };
  const clock = setInterval(tick, 1000);
  get("fault").hidden = true;
  get("cancel").hidden = false;
  get("clock").textContent = "";
  document.body.classList.add("busy");
  say(`Reading ${file.name}`);
  try {
    const onProgress = (state, number) => own === running && say(inWords(state, number, file.name));
    const answer = await backend.predict(file, { signal: own.signal, onProgress });
    if (own !== running) return;
    show(file.name, answer);
    say(`Done: ${file.name}`);
  } catch (error) {
    if (own !== running) return;
    const cancelled = own.signal.aborted;
    say(cancelled ? "Cancelled" : "");
    if (!cancelled) complain(error.message);
  } finally {
    clearInterval(clock);
    if (own === running) {
      running = null;
      get("cancel").hidden = true;
      get("clock").textContent = "";
      document.body.classList.remove("busy");
    }
  }
}

function inWords(state, number, name) {
  if (state === "waiting") return number === 1 ? "Waiting for 1 picture before this one" : `Waiting for ${number} pictures before this one`;
  if (state === "loading") return "Loading the network";
  return state === "computing" ? `Computing ${name}` : `Sending ${name}`;
}

function say(text) {
  if (get("status").textContent !== text) get("status").textContent = text;
}

function complain(text) {
  get("fault").textContent = text;
  get("fault").hidden = false;
}

function show(name, answer) {
  const { width, height } = answer;
  shown?.answer.image.close?.(); // frees a bitmap
  shown = { name, answer, counts: answer.mask && countPixels(answer) };
  hidden = new Set();
  get("name").textContent = name;
  get("facts").textContent = `${width} × ${height} pixels, computed in ${answer.seconds.toFixed(answer.seconds < 10 ? 2 : 1)} s`;
  get("result").hidden = false;
  document.body.classList.add("done");
  document.querySelector(".seen").style.setProperty("--ratio", width / height);
  for (const id of ["ground", "front"]) Object.assign(get(id), { width, height });
  get("ground").getContext("2d").drawImage(answer.image, 0, 0);
  if (answer.mask) fillTable();
  fillDownloads();
  chooseView(get("views").querySelector(":checked").value);
}

function views() {
  return model.task === "denoise" ? ["before and after"] : ["overlay", "mask", "uncertainty", "picture"];
}

function chooseView(name) {
  view = name;
  const wipes = view === "before and after";
  const slides = wipes || view === "overlay";
  get("slider").hidden = !slides;
  get("slider-name").textContent = wipes ? "Wipe between input and restored" : "Opacity";
  get("edge").hidden = !wipes;
  get("scale").hidden = view !== "uncertainty";
  get("pixel").textContent = "";
  document.body.classList.toggle("wiping", wipes);
  document.body.classList.toggle("labels", view === "overlay" || view === "mask");
  get("amount").value = wipes ? 50 : opacity;
  paint();
  slide();
}

function slide() {
  const percent = get("amount").value;
  get("amount-text").textContent = `${percent} %`;
  if (view === "overlay") opacity = Number(percent);
  get("stage").style.setProperty("--amount", percent);
  get("front").style.opacity = view === "overlay" ? opacity / 100 : 1;
}

function paint() {
  const { answer, name } = shown;
  const front = get("front").getContext("2d");
  get("ground").hidden = view === "mask";
  get("front").hidden = view === "picture";
  get("stage").setAttribute("aria-label", `${view} of ${name}`);
  if (view === "before and after") front.putImageData(answer.restored, 0, 0);
  if (view === "overlay" || view === "mask") front.putImageData(colored(answer.mask, classColors(view === "overlay")), 0, 0);
  if (view === "uncertainty") front.putImageData(colored(answer.uncertainty, heatColors()), 0, 0);
}

function packed(red, green, blue) {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0; // the bytes R, G, B, A of a pixel as one number
}

// The colour of each class id; 0, transparent, where it is switched off. In an overlay black classes are transparent, too.
function classColors(overlay) {
  const colors = new Uint32Array(256);
  model.classes.forEach(({ color }, id) => {
    if (!hidden.has(id) && !(overlay && Math.max(...color) === 0)) colors[id] = packed(...color);
  });
  return colors;
}

function heatColors() {
  return Uint32Array.from({ length: 256 }, (_, value) => {
    const place = (value / 255) * (HEAT.length - 1);
    const low = Math.min(Math.floor(place), HEAT.length - 2);
    return packed(...HEAT[low].map((from, channel) => Math.round(from + (place - low) * (HEAT[low + 1][channel] - from))));
  });
}

function colored(values, colors) {
  const image = new ImageData(shown.answer.width, shown.answer.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < values.length; i++) pixels[i] = colors[values[i]];
  return image;
}

function tellPixel(event) {
  const { answer } = shown;
  if (!answer.mask) return;
  const box = get("stage").getBoundingClientRect();
  const x = Math.min(Math.floor(((event.clientX - box.left) / box.width) * answer.width), answer.width - 1);
  const y = Math.min(Math.floor(((event.clientY - box.top) / box.height) * answer.height), answer.height - 1);
  const at = Math.max(y, 0) * answer.width + Math.max(x, 0);
  const found = model.classes[answer.mask[at]];
  const sure = answer.confidence && found ? `, ${Math.round(answer.confidence[at] / 2.55)} %` : "";
  get("pixel").textContent = `${x}, ${y}: ${found ? found.name : "no class"}${sure}`;
}

function wipe(event) {
  if (view !== "before and after" || !(event.buttons & 1)) return;
  const box = get("stage").getBoundingClientRect();
  get("amount").value = (100 * (event.clientX - box.left)) / box.width;
  slide();
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function fillTable() {
  const { answer, counts } = shown;
  const present = model.classes.map((_, id) => id).filter((id) => counts.pixels[id]);
  present.sort((a, b) => counts.pixels[b] - counts.pixels[a] || a - b);
  const absent = model.classes.filter((_, id) => !counts.pixels[id]).map(({ name }) => name);
  get("areas").tBodies[0].replaceChildren(...present.map(areaRow));
  get("sure").hidden = !answer.confidence;
  get("absent").textContent = absent.length ? `Not in this picture: ${absent.join(", ")}` : "";
  if (counts.pixels[EMPTY]) get("absent").textContent += ` Without a value: ${counts.pixels[EMPTY].toLocaleString("en")} pixels`;
  get("every").checked = true;
  get("every").indeterminate = false;
}

function areaRow(id) {
  const { answer, counts } = shown;
  const { name, color } = model.classes[id];
  const box = element("input", { type: "checkbox", checked: true });
  const swatch = element("i", { className: "swatch" });
  swatch.style.background = `rgb(${color.join(" ")})`;
  const pixels = counts.pixels[id];
  const cells = [percent(pixels / answer.mask.length), pixels.toLocaleString("en")];
  if (answer.confidence) cells.push(percent(counts.sums[id] / pixels / 255));
  const label = element("label", {}, box, swatch, element("bdi", { textContent: name }));
  const row = element("tr", {}, element("th", { scope: "row" }, label), ...cells.map((text) => element("td", { textContent: text })));
  box.addEventListener("change", () => switchClass(id, row, box.checked));
  return row;
}

function switchClass(id, row, on) {
  if (on) hidden.delete(id);
  else hidden.add(id);
  row.classList.toggle("off", !on);
  const boxes = [...get("areas").tBodies[0].querySelectorAll("input")];
  get("every").checked = boxes.every((box) => box.checked);
  get("every").indeterminate = !get("every").checked && boxes.some((box) => box.checked);
  paint();
}

function switchEvery() {
  const on = get("every").checked;
  hidden = new Set(on ? [] : model.classes.keys());
  for (const row of get("areas").tBodies[0].rows) {
    row.querySelector("input").checked = on;
    row.classList.toggle("off", !on);
  }
  paint();
}

function fillDownloads() {
  const { answer } = shown;
  const files = [];
  if (answer.mask) {
    const palette = new Uint8Array(768);
    model.classes.forEach(({ color }, id) => palette.set(color, 3 * id));
    files.push({ name: "Mask", suffix: ".mask.png", make: () => encodePng(answer, answer.mask, palette) });
    files.push({ name: "Overlay as shown", suffix: ".overlay.png", make: encodeOverlay });
    files.push({ name: "Areas", suffix: ".areas.csv", make: async () => encodeAreas(shown.name, answer, shown.counts, model.classes) });
  }
  if (answer.uncertainty) files.push({ name: "Uncertainty", suffix: ".uncertainty.png", make: () => encodePng(answer, answer.uncertainty) });
  if (answer.confidence) files.push({ name: "Confidence", suffix: ".confidence.png", make: () => encodePng(answer, answer.confidence) });
  if (answer.restored) files.push({ name: "Restored picture", suffix: ".restored.png", make: encodeRestored });
  get("downloads").replaceChildren(...[...files, ...answer.downloads].map((file) => element("li", {}, downloadButton(file))));
}

function downloadButton({ name, suffix, make }) {
  const kind = suffix.split(".").pop();
  const button = element("button", { type: "button", textContent: `${name} (${kind === "geojson" ? "GeoJSON" : kind.toUpperCase()})` });
  const stem = shown.name.replace(/\.[^.]*$/, "") || "picture";
  button.addEventListener("click", async () => {
    button.disabled = true;
    get("fault").hidden = true;
    try {
      const url = URL.createObjectURL(await make(AbortSignal.timeout(600_000)));
      element("a", { href: url, download: stem + suffix }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      complain(`${name}: ${error.message}`);
    }
    button.disabled = false;
  });
  return button;
}

function fileOf(canvas) {
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture is too large for this browser"))), "image/png");
  });
}

function canvasOfAnswer() {
  const { width, height } = shown.answer;
  return element("canvas", { width, height });
}

function encodeOverlay() {
  const [canvas, front] = [canvasOfAnswer(), canvasOfAnswer()];
  front.getContext("2d").putImageData(colored(shown.answer.mask, classColors(true)), 0, 0);
  const drawing = canvas.getContext("2d");
  drawing.drawImage(shown.answer.image, 0, 0);
  drawing.globalAlpha = opacity / 100;
  drawing.drawImage(front, 0, 0);
  return fileOf(canvas);
}

function encodeRestored() {
  const canvas = canvasOfAnswer();
  canvas.getContext("2d").putImageData(shown.answer.restored, 0, 0);
  return fileOf(canvas);
}

function take(files) {
  if (!files?.length) return;
  compute(files[0]);
  if (files.length > 1) complain(`${files.length} files: only ${files[0].name} is computed, one picture at a time`);
}

function listen() {
  get("choose").addEventListener("click", () => get("file").click());
  get("file").addEventListener("change", () => {
    take(get("file").files);
    get("file").value = ""; // the same file can be chosen again
  });
  get("cancel").addEventListener("click", () => {
    running?.abort();
    get("choose").focus();
  });
  document.addEventListener("paste", (event) => take(event.clipboardData?.files));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    take(event.dataTransfer.files);
  });
  get("amount").addEventListener("input", slide);
  get("every").addEventListener("change", switchEvery);
  get("stage").addEventListener("pointermove", (event) => (view === "before and after" ? wipe(event) : tellPixel(event)));
  get("stage").addEventListener("pointerdown", (event) => {
    get("stage").setPointerCapture(event.pointerId);
    wipe(event);
  });
  get("stage").addEventListener("pointerleave", () => (get("pixel").textContent = ""));
}

async function start() {
  model = await backend.describe();
  document.title = model.title;
  get("title").textContent = model.title;
  get("about").textContent = model.about;
  get("file").accept = model.accept;
  get("scale").querySelector("i").style.background = `linear-gradient(to right, ${HEAT.map((color) => `rgb(${color.join(" ")})`).join(", ")})`;
  get("areas").hidden = !model.classes.length;
  document.body.classList.toggle("whole", !model.classes.length);
  views().forEach((name, index) => {
    const choice = element("input", { type: "radio", name: "view", value: name, checked: !index });
    choice.addEventListener("change", () => chooseView(name));
    get("views").append(element("label", {}, choice, name[0].toUpperCase() + name.slice(1)));
  });
  get("views").hidden = views().length === 1;
  get("choose").disabled = false;
  listen();
}

start().catch((error) => complain(error.message));
