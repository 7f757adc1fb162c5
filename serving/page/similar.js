// Photos of the record sets that are like the one that was asked about, below its answer; and one of them in a window.

const $ = (id) => document.getElementById(id);

// Shows what the answer says of similar photos. Returns a sentence about them for ears, which may be empty.
export function showSimilar(card, body, labels) {
  if (body.nearest === undefined) return "";
  const section = card.querySelector(".similar");
  section.hidden = false;
  const problem = card.querySelector(".similar-problem");
  problem.hidden = body.nearest !== null;
  if (body.nearest === null) {
    problem.textContent = body.nearest_error;
    return " No similar photos.";
  }
  const known = new Map(labels.map((label) => [label.name, label]));
  const found = body.nearest.map((near) => ({ ...near, words: wordsOf(near, known), colour: colourOf(near, known) }));
  card.querySelector(".similar-list").replaceChildren(...found.map(makeItem));
  const best = found[0];
  return ` ${count(found.length, "similar photo")}, the nearest: ${best.words}, similarity ${numberOf(best)}.`;
}

// The SHA-256 of a file in hexadecimal; empty where the browser has none, as on pages without HTTPS.
export async function sha256Of(file) {
  try {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
    return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  } catch {
    return "";
  }
}

export function listenToPhoto() {
  $("photo-close").addEventListener("click", () => $("photo").close());
}

function makeItem(near) {
  const item = $("similar-photo").content.firstElementChild.cloneNode(true);
  const button = item.querySelector("button");
  if (near.colour) button.classList.add(`is-${near.colour}`);
  showPicture(item.querySelector("img"), near);
  item.querySelector(".similar-label").textContent = near.words;
  item.querySelector(".similarity").textContent = numberOf(near);
  item.querySelector(".same-file").hidden = !near.same_file;
  button.title = near.image_uri;
  button.addEventListener("click", () => openPhoto(near));
  return item;
}

function openPhoto(near) {
  $("photo-title").textContent = near.words;
  showPicture($("photo-picture"), near);
  const facts = [
    ["Similarity", near.same_file ? `${numberOf(near)}, the same file` : numberOf(near)],
    ["Photo", near.image_uri],
    ["Set", near.set],
  ];
  $("photo-facts").replaceChildren(
    ...facts.flatMap(([name, text]) => [make("dt", name), name === "Photo" ? makeUri(text) : make("dd", text)]),
  );
  $("photo").showModal();
}

// A photo of the web is not loaded by this page, but whoever looks may go there.
function makeUri(uri) {
  if (!/^https?:\/\//.test(uri)) return make("dd", uri);
  const cell = document.createElement("dd");
  const link = make("a", uri);
  link.href = uri;
  link.target = "_blank";
  link.rel = "noreferrer noopener";
  cell.append(link);
  return cell;
}

// The picture, or words in its place if the server cannot show it.
function showPicture(image, near) {
  const words = image.parentElement.querySelector(".no-photo");
  image.hidden = false;
  words.hidden = true;
  image.onerror = () => {
    image.hidden = true;
    words.hidden = false;
    words.textContent = `No picture: ${near.image_uri.split("/").pop()}`;
  };
  image.src = near.photo;
}

function make(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

const wordsOf = (near, known) => near.labels.map((name) => known.get(name)?.text ?? name).join(", ") || "no label";
const colourOf = (near, known) => (near.labels.length === 1 ? known.get(near.labels[0])?.colour : undefined);
const numberOf = (near) => near.similarity.toFixed(3);
const count = (number, words) => `${number} ${words}${number === 1 ? "" : "s"}`;
