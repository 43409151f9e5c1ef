"use strict";

// Small regions of a mask taken away, step by step as `segnet/regions/cleanup.py` does it, so that both give the same mask.

// The mask without regions of fewer than `minRegion` pixels, and without holes of fewer than `fillHoles`. Both 0: as it is.
function cleanUp({ mask, height, width }, minRegion, fillHoles) {
  const most = Math.max(minRegion, fillHoles);
  if (most <= 1) return mask;
  const graph = regionGraph({ mask, height, width });
  const waiting = new Queue();
  const count = graph.sizes.length;
  const wait = (number) => graph.sizes[number] < most && waiting.push(graph.sizes[number] * count + number);
  for (let number = 0; number < count; number++) wait(number);
  while (waiting.length) {
    const first = waiting.pop();
    const [size, number] = [Math.floor(first / count), first % count];
    if (graph.sizes[number] !== size || !graph.sides[number].size) continue; // has grown, is part of another, or is the whole
    const isHole = graph.sides[number].size === 1 && !graph.atBorder[number];
    if (size < minRegion || (isHole && size < fillHoles)) for (const changed of dissolve(graph, number)) wait(changed);
  }
  return Uint8Array.from(graph.labels, (number) => graph.classes[rootOf(graph.partOf, number)]);
}

// The regions, numbered in reading order, and the sides of pixels that they share.
function regionGraph({ mask, height, width }) {
  const parent = Int32Array.from(mask.keys());
  const join = (one, other) => {
    const [a, b] = [rootOf(parent, one), rootOf(parent, other)];
    parent[Math.max(a, b)] = Math.min(a, b);
  };
  for (let i = 0; i < mask.length; i++) {
    if (i % width && mask[i - 1] === mask[i]) join(i, i - 1);
    if (i >= width && mask[i - width] === mask[i]) join(i, i - width);
  }
  const labels = new Int32Array(mask.length);
  const graph = { labels, classes: [], sizes: [], sides: [], atBorder: [], partOf: [] };
  for (let i = 0; i < mask.length; i++) {
    const root = rootOf(parent, i);
    labels[i] = root === i ? graph.sizes.push(0) - 1 : labels[root];
    if (root === i) graph.classes.push(mask[i]);
    graph.sizes[labels[i]] += 1;
    const [y, x] = [Math.floor(i / width), i % width];
    graph.atBorder[labels[i]] ||= y === 0 || x === 0 || y === height - 1 || x === width - 1;
  }
  graph.sides = graph.sizes.map(() => new Map());
  graph.partOf = [...graph.sizes.keys()];
  shareSides(graph, width, () => true);
  shareSides(graph, 1, (i) => i % width);
  return graph;
}

// Count the sides between the pixels that have a neighbour `step` before them, by `hasNeighbour`, and this neighbour.
function shareSides({ labels, sizes, sides }, step, hasNeighbour) {
  const times = new Map();
  for (let i = step; i < labels.length; i++) {
    const [one, other] = [labels[i], labels[i - step]];
    const pair = one * sizes.length + other;
    if (one !== other && hasNeighbour(i)) times.set(pair, (times.get(pair) ?? 0) + 1);
  }
  for (const pair of [...times.keys()].sort((one, other) => one - other)) {
    const [a, b] = [Math.floor(pair / sizes.length), pair % sizes.length];
    sides[a].set(b, (sides[a].get(b) ?? 0) + times.get(pair));
    sides[b].set(a, (sides[b].get(a) ?? 0) + times.get(pair));
  }
}

// Give a region the class that borders it longest, and join it with its neighbours of that class. The regions that changed.
function dissolve(graph, number) {
  const { classes, sides } = graph;
  const shared = new Map();
  for (const [other, length] of sides[number]) shared.set(classes[other], (shared.get(classes[other]) ?? 0) + length);
  const [chosen] = [...shared].sort(([idA, a], [idB, b]) => b - a || idA - idB)[0];
  const around = [...sides[number].keys()].filter((other) => classes[other] === chosen);
  const changed = new Set();
  let joined = number;
  for (const other of around) {
    const [few, many] = sides[joined].size <= sides[other].size ? [joined, other] : [other, joined];
    for (const neighbour of joinRegions(graph, few, many)) changed.add(neighbour);
    joined = many;
  }
  classes[joined] = chosen;
  for (const gone of [number, ...around]) changed.delete(gone);
  return changed.add(joined);
}

// Make region `few` a part of `many`; the neighbours of `few`, which have another neighbour now.
function joinRegions({ sides, sizes, atBorder, partOf }, few, many) {
  const neighbours = sides[few];
  neighbours.delete(many);
  sides[many].delete(few);
  for (const [other, length] of neighbours) {
    sides[other].delete(few);
    const together = (sides[many].get(other) ?? 0) + length;
    sides[many].set(other, together);
    sides[other].set(many, together);
  }
  sides[few] = new Map();
  sizes[many] += sizes[few];
  sizes[few] = -1;
  atBorder[many] ||= atBorder[few];
  partOf[few] = many;
  return neighbours.keys();
}

// The root of a node in a forest; the path to it becomes shorter.
function rootOf(parent, node) {
  while (parent[node] !== node) {
    parent[node] = parent[parent[node]];
    node = parent[node];
  }
  return node;
}

// Numbers, of which the smallest comes first: a binary heap.
class Queue {
  values = [];

  get length() {
    return this.values.length;
  }

  push(value) {
    const { values } = this;
    let place = values.push(value) - 1;
    for (let above = (place - 1) >> 1; place && values[above] > value; above = (place - 1) >> 1) {
      values[place] = values[above];
      place = above;
    }
    values[place] = value;
  }

  pop() {
    const { values } = this;
    const first = values[0];
    const last = values.pop();
    if (!values.length) return first;
    let place = 0;
    for (let below = 1; below < values.length; below = 2 * place + 1) {
      if (below + 1 < values.length && values[below + 1] < values[below]) below += 1;
      if (values[below] >= last) break;
      values[place] = values[below];
      place = below;
    }
    values[place] = last;
    return first;
  }
}
