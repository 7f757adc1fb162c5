"use strict";
// Labels of photos, which the page saves as corrections.csv.
const data = JSON.parse(document.getElementById("data").textContent);
const figures = [...document.querySelectorAll("figure[data-place]")];
const save = document.getElementById("save");
const chosen = new Map();
let saved = true;

function changed(figure) {
  const value = figure.querySelector("select").value;
  const place = Number(figure.dataset.place);
  if (value === "") chosen.delete(place); else chosen.set(place, { value, when: new Date().toISOString() });
  figure.classList.toggle("done", value !== "");
  document.getElementById("progress").textContent = `${chosen.size} of ${figures.length} labelled`;
  save.disabled = chosen.size === 0;
  saved = false;
}

function cell(text) {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function table() {
  const by = document.getElementById("by").value.trim();
  const rows = [["image_uri", "image_sha256", "action", "label", "was", "by", "when"]];
  for (const [place, { value, when }] of [...chosen].sort((one, other) => one[0] - other[0])) {
    const photo = data.photos[place];
    const removed = value === "remove";
    const label = removed ? "" : data.labels[Number(value)];
    rows.push([photo.uri, photo.digest, removed ? "remove" : "change", label, "", by, when]);
  }
  return rows.map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

for (const figure of figures) {
  const select = figure.querySelector("select");
  select.addEventListener("change", () => changed(figure));
  select.addEventListener("keydown", (event) => {
    const number = Number(event.key);
    if (event.ctrlKey || event.altKey || event.metaKey || !(number >= 1 && number <= Math.min(9, data.labels.length))) return;
    event.preventDefault();
    select.value = String(number - 1);
    changed(figure);
    const next = figures[Number(figure.dataset.place) + 1];
    if (next) {
      next.querySelector("select").focus();
      next.scrollIntoView({ block: "nearest" });
    }
  });
}

save.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = "corrections.csv";
  link.click();
  URL.revokeObjectURL(link.href);
  saved = true;
});

window.addEventListener("beforeunload", (event) => {
  if (!saved && chosen.size) event.preventDefault();
});
