"use strict";
// Two ONNX files answer the same pixels in this browser, by ONNX Runtime compiled to WebAssembly, on one thread.
const NAMES = ["original", "optimized"];
const MIN_MILLISECONDS = 15; // a file is run again until it has run for so long: browsers tell time in steps
const SHOWN = 5; // classes
const BRUSH = 22; // of 280 pixels

const $ = (id) => document.getElementById(id);
const pad = $("pad");
const ink = pad.getContext("2d", { willReadFrequently: true });
const sessions = {};
let about; // models.json: classes, channels, side, bytes and accuracy of both files
let pixels = null; // what is shown where it is no drawing: Float32Array (channels, side, side), 0 to 255
let asked = false, busy = false;

ort.env.wasm.numThreads = 1; // more need headers that a plain server does not send
ort.env.logLevel = "error";

async function start() {
  try {
    about = await (await fetch("models.json")).json();
    for (const name of NAMES) {
      const file = await (await fetch(about[name].file)).arrayBuffer();
      sessions[name] = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
    }
  } catch (error) {
    $("verdict").textContent = location.protocol === "file:"
      ? "A browser reads no files from a folder: open this page by a server, such as python -m http.server."
      : `The models did not load: ${error.message}`;
    throw error;
  }
  $("about").textContent =
    `${about.network} on ${about.dataset}. Draw, drop an image anywhere, or use the camera; nothing leaves this page.`;
  showSamples();
  clear();
}

function clear() {
  pixels = null;
  ink.fillStyle = "#000";
  ink.fillRect(0, 0, pad.width, pad.height);
  ask();
}

// The pixels that the models take of anything that can be drawn: its middle square, scaled where it does not fit.
function read(source, width, height) {
  const small = document.createElement("canvas");
  const side = small.width = small.height = about.side;
  const context = small.getContext("2d", { willReadFrequently: true });
  const edge = Math.min(width, height);
  context.imageSmoothingEnabled = edge !== side;
  context.imageSmoothingQuality = "high";
  context.drawImage(source, (width - edge) / 2, (height - edge) / 2, edge, edge, 0, 0, side, side);
  const colours = context.getImageData(0, 0, side, side).data;
  const values = new Float32Array(about.channels * side * side);
  for (let i = 0; i < side * side; i += 1) {
    const [r, g, b] = [0, 1, 2].map((channel) => colours[4 * i + channel]);
    if (about.channels === 1) values[i] = r === g && g === b ? r : (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
    else [r, g, b].forEach((value, channel) => { values[channel * side * side + i] = value; });
  }
  return $("invert").checked ? values.map((value) => 255 - value) : values;
}

function show(source, width, height) {
  pixels = read(source, width, height);
  const edge = Math.min(width, height);
  ink.imageSmoothingEnabled = edge > pad.width;
  ink.drawImage(source, (width - edge) / 2, (height - edge) / 2, edge, edge, 0, 0, pad.width, pad.height);
  ask();
}

// One question at a time; the last one that came in the meantime is asked next.
async function ask() {
  asked = true;
  if (busy) return;
  busy = true;
  while (asked) {
    asked = false;
    const input = pixels ?? read(pad, pad.width, pad.height);
    const answers = {};
    for (const name of NAMES) answers[name] = await run(name, input);
    report(answers);
    await new Promise(requestAnimationFrame);
  }
  busy = false;
}

async function run(name, input) {
  const shape = [1, about.channels, about.side, about.side];
  const feeds = { input: new ort.Tensor("float32", input, shape) };
  const output = await sessions[name].run(feeds); // this one is not timed
  const begin = performance.now();
  let calls = 0;
  do {
    await sessions[name].run(feeds);
    calls += 1;
  } while (performance.now() - begin < MIN_MILLISECONDS);
  const logits = Array.from(Object.values(output)[0].data);
  const top = Math.max(...logits);
  const exponents = logits.map((logit) => Math.exp(logit - top));
  const sum = exponents.reduce((a, b) => a + b);
  return { logits, milliseconds: (performance.now() - begin) / calls, probabilities: exponents.map((e) => e / sum) };
}

function report(answers) {
  const best = NAMES.map((name) => answers[name].logits.indexOf(Math.max(...answers[name].logits)));
  const differ = best[0] !== best[1];
  const [first, second] = best.map((number) => about.classes[number]);
  $("verdict").textContent = differ
    ? `They disagree: the original says ${first}, the optimized file ${second}.` : `Both say ${first}.`;
  $("verdict").classList.toggle("differ", differ);
  const order = NAMES.flatMap((name) => answers[name].probabilities.map((p, number) => [p, number]))
    .sort((a, b) => b[0] - a[0]).map((pair) => pair[1]);
  const shown = [...new Set(order)].slice(0, SHOWN);
  for (const name of NAMES) {
    const card = $(name);
    const { milliseconds, probabilities, logits } = answers[name];
    const { bytes, accuracy } = about[name];
    card.querySelector(".facts").textContent = `${bytes.toLocaleString("en")} bytes, `
      + `${milliseconds.toPrecision(2)} ms here, ${(100 * accuracy).toFixed(2)} % of the test images right`;
    card.dataset.logits = JSON.stringify(logits);
    card.querySelector(".bars").replaceChildren(...shown.map((number) => bar(about.classes[number], probabilities[number])));
  }
  document.body.dataset.answers = Number(document.body.dataset.answers ?? 0) + 1;
}

function bar(label, probability) {
  const item = document.createElement("li");
  const [name, share, value] = ["span", "i", "b"].map((tag) => document.createElement(tag));
  name.textContent = label;
  share.style.setProperty("--share", `${(100 * probability).toFixed(1)}%`);
  value.textContent = `${(100 * probability).toFixed(1)} %`;
  const track = document.createElement("span");
  track.append(share);
  item.append(name, track, value);
  return item;
}

function showSamples() {
  for (const sample of about.samples) {
    const [button, image] = ["button", "img"].map((tag) => document.createElement(tag));
    button.type = "button";
    image.src = sample.file;
    image.alt = `test image of ${sample.label}`;
    button.append(image);
    button.addEventListener("click", () => show(image, image.naturalWidth, image.naturalHeight));
    $("samples").append(button);
  }
}

async function open(file) {
  try {
    const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
    show(bitmap, bitmap.width, bitmap.height);
  } catch {
    $("verdict").textContent = `${file.name} is no image that this browser reads.`;
  }
}

let last = null;
function place(event) {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) * pad.width / box.width, (event.clientY - box.top) * pad.height / box.height];
}
pad.addEventListener("pointerdown", (event) => {
  if (pixels) clear();
  pad.setPointerCapture(event.pointerId);
  last = place(event);
  draw(event);
});
pad.addEventListener("pointermove", (event) => last && draw(event));
for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => { last = null; });
function draw(event) {
  const next = place(event);
  Object.assign(ink, { lineWidth: BRUSH, lineCap: "round", strokeStyle: "#fff" });
  ink.beginPath();
  ink.moveTo(...last);
  ink.lineTo(...next);
  ink.stroke();
  last = next;
  ask();
}

$("clear").addEventListener("click", clear);
$("invert").addEventListener("change", () => { if (pixels) pixels = pixels.map((value) => 255 - value); ask(); });
$("file").addEventListener("change", (event) => event.target.files[0] && open(event.target.files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });
}

let stream = null;
$("camera").addEventListener("click", async () => {
  if (stream) return stop();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    $("verdict").textContent = `No camera: ${error?.message ?? "this page is not on a secure address"}`;
    return;
  }
  $("camera").setAttribute("aria-pressed", "true");
  $("video").srcObject = stream;
  await $("video").play();
  const look = () => {
    if (!stream) return;
    show($("video"), $("video").videoWidth, $("video").videoHeight);
    setTimeout(look, 150);
  };
  look();
});
function stop() {
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  $("camera").setAttribute("aria-pressed", "false");
}

start();
