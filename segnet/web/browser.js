"use strict";

// `backend` of page.js in this browser: onnxruntime-web computes, in a worker, see worker.js. Nothing leaves this machine.
//
// The line before gives `folder`: {about: what backend.describe() tells, settings: of worker.js, files: of the folder}.
// Browsers do not let a page that was opened from a folder read the files beside it, but they run scripts from there: each file
// is one that calls `addPart` with bytes in base64.

let parts; // name -> the buffers that the files have given
let worker = null; // a promise; null before the first start and after a computation that was ended

function addPart(name, text) {
  const bytes = Uint8Array.fromBase64?.(text) ?? Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  (parts[name] ??= []).push(bytes.buffer);
}

const backend = {
  async describe() {
    readyWorker().catch(() => {}); // while the person looks for a picture; `predict` tells what went wrong
    return folder.about;
  },

  async predict(file, { signal, onProgress }) {
    onProgress("loading");
    const own = await untilAborted(readyWorker(), signal);
    onProgress("computing");
    const asking = ask(own, { kind: "predict", file });
    try {
      return { ...(await untilAborted(asking, signal)), downloads: [] };
    } catch (error) {
      own.terminate(); // an aborted computation goes on otherwise, and after a fault memory may be full
      worker = null;
      readyWorker().catch(() => {});
      throw error;
    }
  },
};

// The worker with the network, started where there is none.
function readyWorker() {
  worker ??= startWorker().catch((error) => {
    worker = null;
    throw error;
  });
  return worker;
}

async function startWorker() {
  parts = {};
  for (const name of folder.files) await runScript(name);
  const { code, glue, wasm, network } = parts;
  parts = null;
  const made = new Worker(URL.createObjectURL(new Blob(code, { type: "text/javascript" })));
  await ask(made, { kind: "start", settings: folder.settings, glue: glue[0], wasm: wasm[0], network }, [...wasm, ...network]);
  return made;
}

function runScript(name) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = name;
    script.onload = resolve;
    script.onerror = () => reject(new Error(`${name} is missing – copy the whole folder of this page`));
    document.head.append(script);
    script.remove();
  });
}

// The worker's answer to a message. Rejects with its line where something fails.
function ask(made, message, transferred = []) {
  return new Promise((resolve, reject) => {
    made.onmessage = ({ data }) => (data.kind === "fault" ? reject(new Error(data.message)) : resolve(data));
    made.onerror = (event) => reject(new Error(event.message || "this browser does not start a worker"));
    made.postMessage(message, transferred);
  });
}

// The result of a promise; rejects with the signal's reason where that is aborted before.
function untilAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}
