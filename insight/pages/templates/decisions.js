"use strict";
// What somebody decides about photos on a page: kept in this browser, and downloaded as a file of corrections.
// key: names the page for the browser; photos: in the order of their places; file: the name of the download.
const keptDecisions = (key, photos, file) => {
  // decisions: by the place of a photo, its `action`, `label`, `by` and `when`; history: for undoing; by: a name.
  const state = read() || { decisions: {}, history: [], by: "" };
  let isKept = true, isSaved = true;

  function read() {
    try {
      const kept = JSON.parse(localStorage.getItem(key));
      if (kept && kept.decisions && Array.isArray(kept.history)) return kept;
    } catch (error) { /* A browser may keep nothing for files. */ }
    return null;
  }

  function keep() {
    isSaved = false;
    try { localStorage.setItem(key, JSON.stringify(state)); isKept = true; } catch (error) { isKept = false; }
  }

  const count = () => Object.keys(state.decisions).length;
  const cell = (text) => /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;

  function download() {
    const lines = ["image_uri,image_sha256,action,label,was,by,when"];
    photos.forEach((photo, place) => {
      const one = state.decisions[place];
      if (!one) return;
      const was = (photo.labels || []).join(" | ");
      lines.push([photo.uri, photo.sha256, one.action, one.label, was, one.by || state.by.trim(), one.when].map(cell)
        .join(","));
    });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    link.download = file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    isSaved = true;
  }

  const field = document.getElementById("by");
  field.value = state.by || "";
  field.addEventListener("input", () => { state.by = field.value; keep(); });
  // Only where the browser keeps nothing, what is not downloaded is lost.
  window.addEventListener("beforeunload", (event) => { if (!isKept && !isSaved && count()) event.preventDefault(); });

  const decision = (action, label) => ({ action, label: label || "", by: field.value.trim(), when: new Date().toISOString() });
  return { state, keep, count, decision, download };
};
