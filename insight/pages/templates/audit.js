(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const kept = keptDecisions(`hugs audit ${data.id}`, data.suspects, "corrections.csv");
  const state = kept.state;
  let at = firstOpen();

  function firstOpen() {
    const open = data.suspects.findIndex((_, index) => !(index in state.decisions));
    return open < 0 ? 0 : open;
  }

  function element(tag, text, className) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function picture(place, alt) {
    if (place === null) return element("div", "no picture", "blank");
    const image = element("img");
    image.src = data.pictures[place];
    image.alt = alt;
    return image;
  }

  const quoted = (labels) => labels.map((label) => `“${label}”`).join(" and ");
  const name = (uri) => uri.split("/").slice(-1)[0];

  function show(focus) {
    const suspect = data.suspects[at], decision = state.decisions[at];
    $("photo").replaceChildren(picture(suspect.picture, `the photo ${name(suspect.uri)}`));
    $("uri").textContent = suspect.uri;
    const sure = suspect.wrong === null ? "not judged" : `wrong with a probability of ${Math.round(100 * suspect.wrong)}%`;
    $("verdict").textContent = `Labelled ${quoted(suspect.labels)}, ${sure}. Proposed: “${suspect.proposal}”`;
    $("why").textContent = `${at + 1} of ${data.suspects.length}. Why: ${suspect.why}.`;
    $("accept").replaceChildren(`Change to “${suspect.proposal}”`, element("kbd", "C"));
    for (const button of document.querySelectorAll("[data-action]")) {
      const action = button.dataset.action;
      const pressed = decision !== undefined && decision.action === action &&
        (action !== "change" || decision.label === suspect.proposal);
      button.setAttribute("aria-pressed", String(pressed));
    }
    const other = decision && decision.action === "change" && decision.label !== suspect.proposal ? decision.label : "";
    $("other").value = other;
    $("near").replaceChildren(...suspect.neighbours.map((near) => {
      const item = element("li");
      item.append(picture(near.picture, `the photo ${name(near.uri)}`));
      const agrees = near.labels.some((label) => suspect.labels.includes(label));
      item.append(element("span", near.labels.join(", "), agrees ? "" : "other"), ` ${near.similarity.toFixed(2)}`);
      item.title = near.uri;
      return item;
    }));
    if (!suspect.neighbours.length) $("near").append(element("li", "there is none of another group"));
    $("back").disabled = at === 0;
    $("next").disabled = at === data.suspects.length - 1;
    $("undo").disabled = !state.history.length;
    const decided = kept.count();
    const count = (action) => Object.values(state.decisions).filter((one) => one.action === action).length;
    $("progress").max = data.suspects.length;
    $("progress").value = decided;
    $("progress-words").textContent = `${decided} of ${data.suspects.length} decided: ${count("keep")} kept, ` +
      `${count("change")} changed, ${count("remove")} removed, ${count("unsure")} unsure`;
    $("download").disabled = !decided;
    if (focus) $("verdict").focus({ preventScroll: true });
  }

  function decide(action, label) {
    state.history.push([at, state.decisions[at] === undefined ? null : state.decisions[at]]);
    state.decisions[at] = kept.decision(action, label);
    if (at < data.suspects.length - 1) at += 1;
    kept.keep();
    show(true);
  }

  function undo() {
    const last = state.history.pop();
    if (!last) return;
    const [index, before] = last;
    if (before === null) delete state.decisions[index]; else state.decisions[index] = before;
    at = index;
    kept.keep();
    show(true);
  }

  function move(by) {
    at = Math.min(Math.max(at + by, 0), data.suspects.length - 1);
    show(true);
  }

  const ACTIONS = {
    k: () => decide("keep"),
    c: () => decide("change", data.suspects[at].proposal),
    r: () => decide("remove"),
    u: () => decide("unsure"),
    z: undo,
    l: () => $("other").focus(),
    arrowleft: () => move(-1),
    arrowright: () => move(1),
  };

  $("other").append(element("option", "choose …"));
  $("other").firstChild.value = "";
  for (const label of data.labels) {
    const choice = element("option", label);
    choice.value = label;
    $("other").append(choice);
  }
  $("other").addEventListener("change", () => { if ($("other").value) decide("change", $("other").value); });
  for (const button of document.querySelectorAll("[data-action]")) {
    button.addEventListener("click", () => ACTIONS[{ keep: "k", change: "c", remove: "r", unsure: "u" }[button.dataset.action]]());
  }
  $("back").addEventListener("click", () => move(-1));
  $("next").addEventListener("click", () => move(1));
  $("undo").addEventListener("click", undo);
  $("download").addEventListener("click", kept.download);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
    const act = ACTIONS[event.key.toLowerCase()];
    if (act) { event.preventDefault(); act(); }
  });
  show(false);
})();
