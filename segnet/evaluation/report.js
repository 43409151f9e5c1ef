"use strict";

// The page is complete without this script: it adds the viewer that wipes between two layers, and sorting.

const get = (id) => document.getElementById(id);
const figures = [...document.querySelectorAll("#gallery figure")];
let shown = 0;

function fill(side) {
  const layer = get(side).value;
  const [ground, front] = get(`${side}-layer`).children;
  const sources = figures[shown].querySelectorAll("img");
  const source = [...sources].find((image) => image.dataset.layer === layer);
  front.src = source.src;
  front.alt = source.alt;
  front.dataset.layer = layer;
  ground.hidden = layer !== "error"; // errors are seen over a pale picture
  if (!ground.hidden) ground.src = sources[0].src;
}

function show(index) {
  figures[shown].querySelector("button").removeAttribute("aria-current");
  shown = (index + figures.length) % figures.length;
  const figure = figures[shown];
  const image = figure.querySelector("img");
  figure.querySelector("button").setAttribute("aria-current", "true");
  get("viewer").style.setProperty("--ratio", image.getAttribute("width") / image.getAttribute("height"));
  get("current").replaceChildren(...[...figure.querySelector("figcaption").childNodes].map((node) => node.cloneNode(true)));
  fill("left");
  fill("right");
}

function wipeTo(percent) {
  get("wipe").value = percent;
  get("stage").style.setProperty("--wipe", get("wipe").value);
}

function drag(event) {
  if (!(event.buttons & 1)) return;
  const box = get("stage").getBoundingClientRect();
  wipeTo((100 * (event.clientX - box.left)) / box.width);
}

function startViewer() {
  get("viewer").hidden = false;
  for (const side of ["left", "right"]) get(side).addEventListener("change", () => fill(side));
  get("wipe").addEventListener("input", () => wipeTo(get("wipe").value));
  get("stage").addEventListener("pointerdown", (event) => {
    get("stage").setPointerCapture(event.pointerId);
    drag(event);
  });
  get("stage").addEventListener("pointermove", drag);
  get("previous").addEventListener("click", () => show(shown - 1));
  get("next").addEventListener("click", () => show(shown + 1));
  get("pictures").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.target.matches("input, select") || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    show(shown + step);
    if (event.target.closest("#gallery")) figures[shown].querySelector("button").focus();
  });
  figures.forEach((figure, index) => {
    figure.querySelector("button").addEventListener("click", () => {
      show(index);
      get("viewer").scrollIntoView({ block: "nearest" });
    });
  });
  for (const link of document.querySelectorAll("[data-shows]")) {
    link.addEventListener("click", (event) => {
      const index = figures.indexOf(get(link.dataset.shows).querySelector("figure"));
      event.preventDefault();
      show(index);
      figures[index].querySelector("button").focus({ preventScroll: true });
      get("viewer").scrollIntoView({ block: "start" });
    });
  }
  wipeTo(50);
  show(0);
}

// What cannot be compared, "–", comes last in both directions.
function compare(a, b, sign) {
  if (a === "–" || b === "–") return (a === "–") - (b === "–");
  return sign * a.localeCompare(b, "en", { numeric: true });
}

function sort(head) {
  const column = head.cellIndex;
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const body = head.closest("table").tBodies[0];
  const text = new Map([...body.rows].map((row) => [row, row.cells[column].textContent]));
  body.append(...[...body.rows].sort((a, b) => compare(text.get(a), text.get(b), ascending ? 1 : -1)));
}

for (const button of document.querySelectorAll("button:disabled")) button.disabled = false;
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sort(button.closest("th")));
}
if (figures.length) startViewer();
