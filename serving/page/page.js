// The page: takes photos, makes large ones smaller, asks the server about each, and shows its answers.
import { forServer } from "./shrink.js";
import { listenToPhoto, sha256Of, showSimilar } from "./similar.js";

const AT_ONCE = 4; // Photos that are asked about at the same time.
const TRIES = 4; // How often a busy server is asked again by itself.
const BARS = 5;

const PROBLEMS = {
  not_an_image: "This file is not a photo. Choose a picture, for example a JPEG or PNG.",
  unsupported_format: "This kind of picture cannot be read here. Save it as JPEG or PNG and try again.",
  unsupported_mode: "This kind of picture cannot be read here. Save it as JPEG or PNG and try again.",
  empty_file: "This file is empty.",
  truncated: "This photo is not complete: the end of the file is missing.",
  corrupt: "This photo is damaged.",
  too_many_pixels: "This photo is too large.",
  too_large: "This photo is too large.",
  out_of_memory: "This photo is too large.",
  deadline: "This photo took too long to read.",
  queue_full: "Many photos are waiting at the moment. Try again in a while.",
};
const NO_SERVER = "The server does not answer. Is it still running?";
const OTHER_PROBLEM = "The server could not answer. Try again in a while.";

const $ = (id) => document.getElementById(id);
const waiting = [];
let running = 0;
let settings = null;

async function start() {
  for (const type of ["dragover", "drop"]) document.addEventListener(type, (event) => event.preventDefault());
  try {
    settings = await (await fetchOk("page/settings.json")).json();
  } catch {
    show($("warning"), NO_SERVER);
    return;
  }
  document.title = settings.title;
  $("title").textContent = settings.title;
  if (settings.warning) show($("warning"), settings.warning);
  listen();
}

async function fetchOk(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(String(response.status));
  return response;
}

function listen() {
  const touch = matchMedia("(pointer: coarse)").matches;
  const camera = navigator.mediaDevices?.getUserMedia;
  $("photograph").hidden = !touch && !camera;
  $("photograph").addEventListener("click", () => (touch || !camera ? $("camera-file").click() : openCamera()));
  $("choose").addEventListener("click", () => $("files").click());
  for (const id of ["files", "camera-file"]) {
    $(id).addEventListener("change", (event) => {
      take(event.target.files);
      event.target.value = ""; // So that the same photo can be chosen again.
    });
  }
  document.addEventListener("dragover", () => $("drop").classList.add("is-over"));
  for (const type of ["dragleave", "drop", "dragend"]) {
    document.addEventListener(type, (event) => {
      if (type !== "dragleave" || !event.relatedTarget) $("drop").classList.remove("is-over");
    });
  }
  document.addEventListener("drop", (event) => take(event.dataTransfer.files));
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  $("clear").addEventListener("click", clear);
  $("cancel").addEventListener("click", () => $("camera").close());
  $("camera").addEventListener("close", closeCamera);
  $("shoot").addEventListener("click", shoot);
  listenToPhoto();
}

// What is given is asked about in its order, and stands at the top.
function take(files) {
  const given = Array.from(files);
  if (!given.length) return;
  const cards = given.map((file) => {
    const card = $("answer").content.firstElementChild.cloneNode(true);
    card.querySelector(".name").textContent = file.name || "Photo";
    card.querySelector(".again").addEventListener("click", () => ask(card, file));
    return card;
  });
  $("list").prepend(...cards);
  $("answers").hidden = false;
  say(given.length === 1 ? "Looking at the photo." : `Looking at ${given.length} photos.`);
  cards.forEach((card, number) => ask(card, given[number]));
}

function ask(card, file) {
  card.className = "answer is-waiting";
  card.querySelector(".verdict").textContent = "Looking …";
  for (const part of [".more", ".bars", ".again", ".similar"]) card.querySelector(part).hidden = true;
  waiting.push(async () => {
    if (!card.isConnected) return;
    const photo = await forServer(file, settings.image_size);
    preview(card, photo);
    if (photo.size > settings.max_body_bytes) showProblem(card, PROBLEMS.too_large, false);
    else await answer(card, photo, await addressFor(file));
  });
  work();
}

function work() {
  while (running < AT_ONCE && waiting.length) {
    running += 1;
    waiting.shift()().finally(() => {
      running -= 1;
      work();
    });
  }
}

// The page sends a smaller copy of a large file, so it says which file it is of: one of the sets may be the same.
async function addressFor(file) {
  const address = `predict?top_k=${settings.labels.length}`;
  if (!settings.search) return address;
  const digest = await sha256Of(file);
  return `${address}&nearest=${settings.search.count}${digest ? `&image_sha256=${digest}` : ""}`;
}

async function answer(card, photo, address) {
  for (let tried = 1; card.isConnected; tried += 1) {
    let response;
    let body;
    try {
      response = await fetch(address, {
        method: "POST",
        body: photo,
        headers: { "Content-Type": "application/octet-stream" },
      });
      body = await response.json();
    } catch {
      showProblem(card, NO_SERVER, true);
      return;
    }
    if (response.ok) {
      showAnswer(card, body);
      return;
    }
    const seconds = Number(response.headers.get("Retry-After")) || 0;
    if (response.status !== 429 || tried === TRIES) {
      const isOfPhoto = response.status < 500 && response.status !== 429;
      showProblem(card, PROBLEMS[body.reason] ?? OTHER_PROBLEM, !isOfPhoto);
      return;
    }
    await new Promise((go) => setTimeout(go, seconds * 1000));
  }
}

function preview(card, photo) {
  const image = card.querySelector("img");
  const url = URL.createObjectURL(photo);
  image.addEventListener("load", () => (image.hidden = false), { once: true });
  for (const type of ["load", "error"]) image.addEventListener(type, () => URL.revokeObjectURL(url), { once: true });
  image.src = url;
}

function showAnswer(card, body) {
  const found = body.predictions.map((one) => ({ ...settings.labels[one.id], score: one.score }));
  const best = found[0];
  card.classList.remove("is-waiting");
  const likely = settings.one_answer ? [best] : found.filter((one) => one.score >= 0.5);
  const sure = body.confident && likely.length > 0;
  const words = sure ? likely.map((one) => one.text).join(", ") : "Not sure";
  if (sure) card.classList.add(`is-${best.colour}`);
  else show(card.querySelector(".more"), `Perhaps ${best.text}.`);
  card.querySelector(".verdict").textContent = capital(words);
  const bars = card.querySelector(".bars");
  bars.replaceChildren(...found.slice(0, BARS).map(makeBar));
  bars.hidden = false;
  const share = shareOf(best.score);
  const similar = showSimilar(card, body, settings.labels);
  say(`${nameOf(card)}: ${sure ? `${words}, ${share}` : `not sure, perhaps ${best.text}, ${share}`}.${similar}`);
}

function makeBar(one) {
  const bar = $("bar").content.firstElementChild.cloneNode(true);
  bar.classList.add(`is-${one.colour}`);
  bar.querySelector(".bar-label").textContent = one.text;
  bar.querySelector(".bar-share").textContent = shareOf(one.score);
  bar.querySelector(".bar span").style.setProperty("--share", `${100 * one.score}%`);
  return bar;
}

function showProblem(card, words, canTryAgain) {
  card.className = "answer is-bad";
  card.querySelector(".verdict").textContent = "No answer";
  show(card.querySelector(".more"), words);
  card.querySelector(".again").hidden = !canTryAgain;
  say(`${nameOf(card)}: ${words}`);
}

function clear() {
  waiting.length = 0;
  $("list").replaceChildren();
  $("answers").hidden = true;
  $("choose").focus();
}

function show(element, words) {
  element.textContent = words;
  element.hidden = false;
}

// Several may come at once, so none takes the place of another.
function say(words) {
  const line = document.createElement("span");
  line.textContent = `${words} `;
  $("news").append(line);
  setTimeout(() => line.remove(), 10_000);
}

const nameOf = (card) => card.querySelector(".name").textContent;
const capital = (words) => words.charAt(0).toLocaleUpperCase() + words.slice(1);

function shareOf(score) {
  const percent = Math.round(100 * score);
  if (percent === 100 && score < 1) return "> 99 %";
  return percent === 0 && score > 0 ? "< 1 %" : `${percent} %`;
}

async function openCamera() {
  $("camera-problem").hidden = true;
  $("shoot").disabled = true;
  $("camera").showModal();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1920 } } });
    if (!$("camera").open) {
      for (const track of stream.getTracks()) track.stop();
      return;
    }
    $("video").srcObject = stream;
    await $("video").play();
    $("shoot").disabled = false;
    $("shoot").focus();
  } catch {
    show($("camera-problem"), "There is no camera, or this page may not use it.");
  }
}

function closeCamera() {
  for (const track of $("video").srcObject?.getTracks() ?? []) track.stop();
  $("video").srcObject = null;
  $("photograph").focus();
}

function shoot() {
  const canvas = document.createElement("canvas");
  canvas.width = $("video").videoWidth;
  canvas.height = $("video").videoHeight;
  canvas.getContext("2d").drawImage($("video"), 0, 0);
  canvas.toBlob(
    (blob) => {
      $("camera").close();
      take([new File([blob], "Photo of the camera", { type: "image/jpeg" })]);
    },
    "image/jpeg",
    0.92,
  );
}

start();
