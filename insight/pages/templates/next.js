// Labels of photos, which the page saves as labels.csv.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const figures = [...document.querySelectorAll("figure[data-place]")];
  const save = document.getElementById("save");
  const kept = keptDecisions(`hugs next ${data.id}`, data.photos, data.file);

  function show(figure) {
    const decision = kept.state.decisions[figure.dataset.place];
    const value = !decision ? "" : decision.action === "remove" ? "remove" : String(data.labels.indexOf(decision.label));
    figure.querySelector("select").value = value;
    figure.classList.toggle("done", Boolean(decision));
  }

  function showProgress() {
    document.getElementById("progress").textContent = `${kept.count()} of ${figures.length} labelled`;
    save.disabled = !kept.count();
  }

  function changed(figure) {
    const value = figure.querySelector("select").value, place = figure.dataset.place;
    if (value === "") delete kept.state.decisions[place];
    else if (value === "remove") kept.state.decisions[place] = kept.decision("remove");
    else kept.state.decisions[place] = kept.decision("change", data.labels[Number(value)]);
    kept.keep();
    show(figure);
    showProgress();
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
    show(figure);
  }
  save.addEventListener("click", kept.download);
  showProgress();
})();
