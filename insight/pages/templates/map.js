// Draws the map of photos. The points are written into the pixels of a canvas: 50,000 take a few milliseconds, on every
// machine, also without a graphics card.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const unpack = (text, Kind) => {
    const raw = atob(text);
    const bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return new Kind(bytes.buffer, 0, bytes.length / Kind.BYTES_PER_ELEMENT);
  };

  // ---- the photos
  const names = data.names;
  const n = names.length;
  const placed = unpack(data.positions, Uint16Array);
  const xs = new Float32Array(n), ys = new Float32Array(n);
  for (let i = 0; i < n; i++) { xs[i] = placed[2 * i] / 65535; ys[i] = data.height - placed[2 * i + 1] / 65535; }
  // One of the two is 1, unless all photos are at one place.
  const wide = xs.reduce((most, x) => Math.max(most, x), 0), tall = data.height;
  const uriFolder = unpack(data.uri_folder, Uint32Array), linkFolder = unpack(data.link_folder, Uint32Array);
  const digests = unpack(data.digests, Uint8Array);
  const labelCounts = unpack(data.label_counts, Uint16Array), labelIds = unpack(data.label_ids, Uint32Array);
  const labelStarts = new Uint32Array(n + 1);
  for (let i = 0; i < n; i++) labelStarts[i + 1] = labelStarts[i] + labelCounts[i];
  const setOf = unpack(data.set, Uint16Array), tiles = unpack(data.tiles, Int32Array);
  const answerOf = data.answer && unpack(data.answer, Int32Array), wrong = data.wrong && unpack(data.wrong, Int8Array);
  const uri = (i) => data.uri_folders[uriFolder[i]] + names[i];
  const labelsOf = (i) => {
    const ids = new Set(labelIds.subarray(labelStarts[i], labelStarts[i + 1]));
    return [...ids].map((id) => data.labels[id]);
  };
  const link = (i) => {
    const folder = data.link_folders[linkFolder[i]];
    return /^(file|https?):\/\//.test(folder) ? folder + encodeURIComponent(names[i]) : "";
  };
  const digest = (i) => {
    const part = digests.subarray(16 * i, 16 * i + 16);
    return part.some((byte) => byte) ? [...part].map((byte) => byte.toString(16).padStart(2, "0")).join("") : "";
  };
  const counted = (number, one) => `${number.toLocaleString("en")} ${one}${number === 1 ? "" : "s"}`;

  // ---- kinds of colours: each has categories, and the categories of a photo
  const FIRST = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8a6d00", "#7a5195", "#b3261e",
    "#5f8700", "#00a5a5", "#c06ee0"];
  const NONE = "#8a94a3";
  const colour = (k) => {
    if (k < FIRST.length) return FIRST[k];
    // The golden angle: hues that follow each other are far apart. (In hexadecimal, as the pixels need them.)
    const hue = (k * 137.508) % 360, light = [0.48, 0.6, 0.4][k % 3], a = 0.62 * Math.min(light, 1 - light);
    const part = (m) => {
      const at = (m + hue / 30) % 12;
      return Math.round(255 * (light - a * Math.max(-1, Math.min(at - 3, 9 - at, 1)))).toString(16).padStart(2, "0");
    };
    return `#${part(0)}${part(8)}${part(4)}`;
  };
  const kinds = [];
  const addKind = (name, categories, of) => {
    // `of(i, tell)` tells the categories of a photo.
    const counts = new Uint32Array(categories.length);
    for (let i = 0; i < n; i++) of(i, (k) => { counts[k]++; });
    const order = [...counts.keys()].filter((k) => counts[k]);
    if (name === "label") order.sort((a, b) => (a === 0) - (b === 0) || counts[b] - counts[a]);
    const colours = categories.map((category) => category.colour || NONE);
    // By their places in the dictionary, so that a later map has the same colours.
    categories.map((_, k) => k).filter((k) => !categories[k].colour).forEach((k, place) => { colours[k] = colour(place); });
    kinds.push({ name, categories, counts, order, of, colours, shown: new Uint8Array(categories.length).fill(1) });
  };
  addKind("label", [{ name: "(no label)", colour: NONE }, ...data.labels.map((label) => ({ name: label }))], (i, tell) => {
    if (labelStarts[i] === labelStarts[i + 1]) tell(0);
    for (let k = labelStarts[i]; k < labelStarts[i + 1]; k++) tell(1 + labelIds[k]);
  });
  addKind("set", data.sets.map((name) => ({ name })), (i, tell) => tell(setOf[i]));
  if (wrong) {
    const verdicts = [{ name: "not known", colour: NONE }, { name: "right", colour: "#0072b2" }, { name: "wrong",
      colour: "#d55e00" }];
    addKind("right or wrong", verdicts, (i, tell) => tell(wrong[i] + 1 ? wrong[i] + 1 : 0));
  }
  let kind = kinds[0];

  // ---- what is shown, found and chosen
  const visible = new Uint8Array(n).fill(1), chosen = new Uint8Array(n), pixels = new Uint32Array(n);
  let found = null, foundList = [], foundAt = -1, pinned = -1, hovered = -1, numChosen = 0;
  const abgr = (hex) => {
    const value = parseInt(hex.slice(1), 16);
    return (0xff000000 | ((value & 0xff) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
  };
  const update = () => {
    const packed = kind.colours.map(abgr);
    let count = 0;
    for (let i = 0; i < n; i++) {
      let seen = 1;
      for (const each of kinds) {
        let any = 0;
        each.of(i, (k) => { any |= each.shown[k]; });
        seen &= any;
      }
      visible[i] = seen;
      count += seen;
      let first = -1;
      kind.of(i, (k) => { if (first < 0 && kind.shown[k]) first = k; });
      pixels[i] = packed[Math.max(first, 0)];
    }
    $("counts").textContent = count === n ? counted(n, "photo") : `${count.toLocaleString("en")} of ${counted(n, "photo")}`;
    draw();
  };

  // ---- the view: screen = place * scale + offset, in CSS pixels
  // The side of a picture on the map, and the room that the whole map leaves at its edges for half a picture and its frame.
  const TILE = 52, EDGE = TILE / 2 + 8;
  const canvas = $("canvas"), stage = $("stage"), context = canvas.getContext("2d");
  let width = 0, height = 0, ratio = 1, scale = 1, offsetX = 0, offsetY = 0, least = 1;
  let picture = null, words = null;
  const fit = () => {
    const across = Math.max(60, width - 2 * EDGE), down = Math.max(60, height - 2 * EDGE);
    least = Math.min(across / Math.max(wide, 1e-3), down / Math.max(tall, 1e-3), Math.max(across, down));
    scale = least;
    offsetX = (width - scale * wide) / 2;
    offsetY = (height - scale * tall) / 2;
  };
  const measure = () => {
    const whole = Math.abs(scale - least) < 1e-9;
    const middle = [(width / 2 - offsetX) / scale, (height / 2 - offsetY) / scale];
    // No higher than a map of this width needs: a flat map on a phone would be lost in an empty field.
    const highest = Math.max(240, Math.ceil(Math.max(60, canvas.clientWidth - 2 * EDGE) * tall / Math.max(wide, 1e-3)) + 2 * EDGE);
    canvas.style.maxHeight = `${highest}px`;
    ratio = Math.min(window.devicePixelRatio || 1, 2);
    width = canvas.clientWidth;
    height = canvas.clientHeight;
    canvas.width = Math.max(1, Math.round(width * ratio));
    canvas.height = Math.max(1, Math.round(height * ratio));
    picture = context.createImageData(canvas.width, canvas.height);
    words = new Uint32Array(picture.data.buffer);
    if (whole) fit();
    else { offsetX = width / 2 - middle[0] * scale; offsetY = height / 2 - middle[1] * scale; }
    draw();
  };
  const keepInView = () => {
    const margin = 60;
    offsetX = Math.min(width - margin, Math.max(margin - scale * wide, offsetX));
    offsetY = Math.min(height - margin, Math.max(margin - scale * tall, offsetY));
  };
  const zoom = (factor, x = width / 2, y = height / 2) => {
    const next = Math.min(least * 400, Math.max(least * 0.8, scale * factor));
    offsetX = x - (x - offsetX) * next / scale;
    offsetY = y - (y - offsetY) * next / scale;
    scale = next;
    keepInView();
    draw();
  };
  const centre = (i) => {
    if (scale < least * 4) scale = least * 4;
    offsetX = width / 2 - xs[i] * scale;
    offsetY = height / 2 - ys[i] * scale;
    draw();
  };

  // ---- drawing
  // Another order than that of the sets, so that no label covers the others.
  const order = new Uint32Array(n);
  for (let i = 0; i < n; i++) order[i] = i;
  for (let i = n - 1, state = 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const j = Math.floor(state / 4294967296 * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  const base = n > 20000 ? 1.7 : n > 5000 ? 2.4 : n > 800 ? 3.4 : 5;
  // The pixels of a disc, with the share of each that is covered.
  const disc = (radius) => {
    const edge = Math.ceil(radius + 1), found = [];
    for (let y = -edge; y <= edge; y++) {
      for (let x = -edge; x <= edge; x++) {
        const covered = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(x, y)));
        if (covered > 0.05) found.push([x, y, Math.round(covered * 256)]);
      }
    }
    return { edge, xs: found.map((p) => p[0]), ys: found.map((p) => p[1]), covered: found.map((p) => p[2]) };
  };
  const mixed = (under, over, share) => {
    const rest = 256 - share;
    const odd = (((under & 0xff00ff) * rest + (over & 0xff00ff) * share) >>> 8) & 0xff00ff;
    const even = (((under >>> 8) & 0xff) * rest + ((over >>> 8) & 0xff) * share) & 0xff00;
    return (0xff000000 | odd | even) >>> 0;
  };
  const paint = (i, shape, colourOf) => {
    const w = canvas.width, h = canvas.height;
    const x = Math.round((xs[i] * scale + offsetX) * ratio), y = Math.round((ys[i] * scale + offsetY) * ratio);
    const e = shape.edge;
    if (x < e || y < e || x >= w - e || y >= h - e) return;
    for (let p = 0; p < shape.xs.length; p++) {
      const at = (y + shape.ys[p]) * w + x + shape.xs[p], share = shape.covered[p];
      words[at] = share >= 256 ? colourOf : mixed(words[at], colourOf, share);
    }
  };
  const sheets = data.sheets.map((source) => {
    const image = new Image();
    image.addEventListener("load", () => draw());
    image.src = source;
    return image;
  });
  const isReady = (i) => {
    const sheet = tiles[i] < 0 ? null : sheets[Math.floor(tiles[i] / data.tile_columns ** 2)];
    return sheet !== null && sheet.complete && sheet.naturalWidth > 0;
  };
  const drawTile = (target, i, x, y, side) => {
    const place = tiles[i] % data.tile_columns ** 2, step = data.tile_side;
    const column = place % data.tile_columns, row = Math.floor(place / data.tile_columns);
    const sheet = sheets[Math.floor(tiles[i] / data.tile_columns ** 2)];
    target.drawImage(sheet, column * step, row * step, step, step, x, y, side, side);
  };
  const hex = (value) => `#${[value, value >> 8, value >> 16].map((b) => (b & 255).toString(16).padStart(2, "0")).join("")}`;
  // Pictures take the place of points when there are few enough in view.
  const MOST_TILES = 160, MOST_IN_VIEW = 300;
  let tilesInView = [];
  const drawTiles = () => {
    tilesInView = [];
    const seen = inBox(0, 0, width, height, MOST_IN_VIEW);
    if (seen === null) return;
    // Where there is room for one of two pictures, what somebody looks for comes first.
    const rank = (i) => (i === pinned ? 4 : 0) + 2 * chosen[i] + (wrong && wrong[i] === 1 ? 1 : 0);
    seen.sort((a, b) => rank(b) - rank(a));
    const taken = tilesInView;
    for (const i of seen) {
      if (!isReady(i) || (found && !found[i])) continue;
      const x = xs[i] * scale + offsetX, y = ys[i] * scale + offsetY;
      if (taken.some(([u, v]) => Math.abs(u - x) < TILE + 6 && Math.abs(v - y) < TILE + 6)) continue;
      taken.push([x, y, i]);
      if (taken.length > MOST_TILES) break;
      const edge = chosen[i] ? 5 : 2;
      context.fillStyle = chosen[i] ? inkOfPage : hex(pixels[i]);
      context.fillRect(x - TILE / 2 - edge, y - TILE / 2 - edge, TILE + 2 * edge, TILE + 2 * edge);
      drawTile(context, i, x - TILE / 2, y - TILE / 2, TILE);
    }
  };
  const ring = (i, stroke) => {
    const x = xs[i] * scale + offsetX, y = ys[i] * scale + offsetY;
    context.lineWidth = 3;
    context.strokeStyle = stroke;
    context.beginPath();
    context.arc(x, y, radius() + 5, 0, 2 * Math.PI);
    context.stroke();
  };
  const radius = () => Math.min(7, base * Math.pow(scale / least, 0.35));
  let asked = false, lasso = null, inkOfPage = "#000";
  const draw = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; drawNow(); });
  };
  const drawNow = () => {
    const style = getComputedStyle(document.documentElement);
    const token = (name) => style.getPropertyValue(name).trim();
    const full = (text) => abgr(text.length === 4 ? `#${[...text.slice(1)].map((c) => c + c).join("")}` : text);
    const paper = full(token("--paper")), ink = full(token("--ink"));
    inkOfPage = token("--ink");
    words.fill(paper);
    const shape = disc(radius() * ratio), large = disc((radius() + 2) * ratio);
    const faint = (value) => mixed(paper, value, 40);
    if (found || numChosen) {
      for (let k = 0; k < n; k++) {
        const i = order[k];
        if (visible[i] && !chosen[i] && !(found && found[i])) paint(i, shape, found ? faint(pixels[i]) : pixels[i]);
      }
      for (let k = 0; k < n; k++) {
        const i = order[k];
        if (!visible[i]) continue;
        if (chosen[i]) { paint(i, large, ink); paint(i, shape, pixels[i]); }
        else if (found && found[i]) paint(i, large, pixels[i]);
      }
    } else {
      for (let k = 0; k < n; k++) {
        const i = order[k];
        if (visible[i]) paint(i, shape, pixels[i]);
      }
      // What is wrong is what one looks for, so nothing covers it.
      if (kind.name === "right or wrong") {
        for (let i = 0; i < n; i++) if (visible[i] && wrong[i] === 1) paint(i, large, pixels[i]);
      }
    }
    context.putImageData(picture, 0, 0);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    drawTiles();
    if (pinned >= 0) ring(pinned, token("--ink"));
    if (hovered >= 0 && hovered !== pinned) ring(hovered, token("--soft"));
    if (lasso && lasso.length > 1) {
      context.lineWidth = 2;
      context.strokeStyle = token("--blue");
      context.setLineDash([6, 4]);
      context.beginPath();
      lasso.forEach(([x, y]) => context.lineTo(x, y));
      context.closePath();
      context.stroke();
      context.setLineDash([]);
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
  };

  // ---- which photo is where: a grid of cells, with the photos of each
  const cells = Math.max(1, Math.min(512, Math.floor(Math.sqrt(n / 2))));
  const cellOf = (value) => Math.min(cells - 1, Math.max(0, Math.floor(value * cells)));
  const starts = new Uint32Array(cells * cells + 1), inCells = new Uint32Array(n);
  for (let i = 0; i < n; i++) starts[cellOf(ys[i]) * cells + cellOf(xs[i]) + 1]++;
  for (let c = 0; c < cells * cells; c++) starts[c + 1] += starts[c];
  const filled = starts.slice();
  for (let i = 0; i < n; i++) inCells[filled[cellOf(ys[i]) * cells + cellOf(xs[i])]++] = i;
  // The visible photos in a box of the screen; null if they are more than `most`.
  const inBox = (left, top, right, bottom, most = Infinity) => {
    const x0 = (left - offsetX) / scale, x1 = (right - offsetX) / scale;
    const y0 = (top - offsetY) / scale, y1 = (bottom - offsetY) / scale;
    const list = [];
    for (let row = cellOf(y0); row <= cellOf(y1); row++) {
      const from = starts[row * cells + cellOf(x0)], to = starts[row * cells + cellOf(x1) + 1];
      for (let k = from; k < to; k++) {
        const i = inCells[k];
        if (visible[i] && xs[i] >= x0 && xs[i] <= x1 && ys[i] >= y0 && ys[i] <= y1) {
          list.push(i);
          if (list.length > most) return null;
        }
      }
    }
    return list;
  };
  const nearest = (x, y, within = 14) => {
    const over = tilesInView.find(([u, v]) => Math.abs(u - x) <= TILE / 2 && Math.abs(v - y) <= TILE / 2);
    if (over) return over[2];
    let best = -1, closest = within * within;
    for (const i of inBox(x - within, y - within, x + within, y + within)) {
      if (found && !found[i]) continue;
      const distance = (xs[i] * scale + offsetX - x) ** 2 + (ys[i] * scale + offsetY - y) ** 2;
      if (distance < closest) { closest = distance; best = i; }
    }
    return best;
  };

  // ---- one photo
  const NOT_HERE = "The photo cannot be opened from here.";
  const fillPicture = (box, i) => {
    if (isReady(i)) {
      const small = document.createElement("canvas");
      small.width = small.height = data.tile_side;
      small.setAttribute("role", "img");
      small.setAttribute("aria-label", names[i]);
      drawTile(small.getContext("2d"), i, 0, 0, data.tile_side);
      box.append(small);
    } else if (link(i).startsWith("file:")) {
      const image = document.createElement("img");
      image.alt = names[i];
      image.loading = "lazy";
      image.addEventListener("error", () => { box.replaceChildren(NOT_HERE); });
      image.src = link(i);
      box.append(image);
    } else {
      box.textContent = tiles[i] >= 0 ? "…" : NOT_HERE;
    }
  };
  const fillCard = (card, i, withLink) => {
    const box = document.createElement("div"), text = document.createElement("div");
    box.className = "picture";
    fillPicture(box, i);
    const line = (content, name) => {
      const p = document.createElement("p");
      p.textContent = content;
      if (name) p.className = name;
      text.append(p);
      return p;
    };
    line(names[i], "name");
    line(labelsOf(i).join(", ") || "no label");
    if (answerOf && answerOf[i] >= 0) {
      const verdict = wrong[i] === 1 ? ", which is wrong" : wrong[i] === 0 ? ", which is right" : "";
      line(`predicted: ${data.answers[answerOf[i]] || "nothing"}${verdict}`, wrong[i] === 1 ? "is-wrong" : "");
    }
    if (data.sets.length > 1 || withLink) line(`set: ${data.sets[setOf[i]]}`, "soft");
    if (withLink) {
      line(uri(i), "soft");
      if (link(i)) {
        const a = document.createElement("a");
        a.href = link(i);
        a.target = "_blank";
        a.rel = "noreferrer";
        a.textContent = "Open the photo";
        line("").append(a);
      }
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = chosen[i] ? "Let this photo go" : "Choose this photo";
      button.addEventListener("click", () => { choose([i], !chosen[i]); $("photo").querySelector("button").focus(); });
      text.append(button);
    }
    card.replaceChildren(box, text);
  };
  const pin = (i) => {
    pinned = i;
    $("no-photo").hidden = i >= 0;
    if (i >= 0) fillCard($("photo"), i, true);
    else $("photo").replaceChildren();
    draw();
  };
  const hover = (i, x, y) => {
    const card = $("hover");
    if (i !== hovered) {
      hovered = i;
      card.hidden = i < 0;
      if (i >= 0) fillCard(card, i, false);
      draw();
    }
    if (i < 0) return;
    const left = x + 310 > width ? x - 306 : x + 16, top = y + 140 > height ? height - 140 : y + 14;
    card.style.left = `${Math.max(4, left)}px`;
    card.style.top = `${Math.max(4, top)}px`;
  };

  // ---- the chosen photos
  const MOST_SHOWN = 60;
  const choose = (list, isChosen = true) => {
    for (const i of list) {
      numChosen += isChosen - chosen[i];
      chosen[i] = isChosen ? 1 : 0;
    }
    const shown = [];
    for (let i = 0; i < n && shown.length < MOST_SHOWN; i++) if (chosen[i]) shown.push(i);
    $("chosen").hidden = !numChosen;
    $("chosen").replaceChildren(...shown.map((i) => {
      const item = document.createElement("li");
      item.className = "picture";
      item.title = names[i];
      fillPicture(item, i);
      return item;
    }));
    const rest = numChosen > shown.length ? `, of which ${shown.length} are shown` : "";
    $("chosen-count").textContent = numChosen ? counted(numChosen, "photo") + rest : "None. Draw a lasso around some.";
    $("download").disabled = $("clear").disabled = !numChosen;
    if (pinned >= 0) fillCard($("photo"), pinned, true);
    draw();
  };
  const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const table = () => {
    const lines = [["image_uri", "image_sha256", "label", "set", ...(answerOf ? ["prediction"] : [])].join(",")];
    for (let i = 0; i < n; i++) {
      if (!chosen[i]) continue;
      const row = [uri(i), digest(i), labelsOf(i).join(" | "), data.sets[setOf[i]]];
      if (answerOf) row.push(answerOf[i] < 0 ? "" : data.answers[answerOf[i]]);
      lines.push(row.map(cell).join(","));
    }
    return `${lines.join("\n")}\n`;
  };
  $("download").addEventListener("click", () => {
    const a = document.createElement("a");
    a.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
    a.download = "chosen_photos.csv";
    a.click();
    setTimeout(() => URL.revokeObjectURL(a.href), 10000);
  });
  $("clear").addEventListener("click", () => {
    numChosen = 0;
    chosen.fill(0);
    choose([]);
  });
  const inLasso = (path) => {
    const left = Math.min(...path.map((p) => p[0])), right = Math.max(...path.map((p) => p[0]));
    const top = Math.min(...path.map((p) => p[1])), bottom = Math.max(...path.map((p) => p[1]));
    return inBox(left, top, right, bottom).filter((i) => {
      const x = xs[i] * scale + offsetX, y = ys[i] * scale + offsetY;
      let inside = false;
      for (let a = 0, b = path.length - 1; a < path.length; b = a++) {
        const [xa, ya] = path[a], [xb, yb] = path[b];
        if ((ya > y) !== (yb > y) && x < (xb - xa) * (y - ya) / (yb - ya) + xa) inside = !inside;
      }
      return inside && !(found && !found[i]);
    });
  };

  // ---- mouse, fingers and keys on the map
  const pointers = new Map();
  let selecting = false, moved = 0, pinch = null;
  const setSelecting = (on) => {
    selecting = on;
    $("move").setAttribute("aria-pressed", String(!on));
    $("select").setAttribute("aria-pressed", String(on));
    stage.classList.toggle("is-selecting", on);
  };
  $("move").addEventListener("click", () => setSelecting(false));
  $("select").addEventListener("click", () => setSelecting(true));
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place(event));
    moved = 0;
    lasso = pointers.size === 1 && (selecting || event.shiftKey) ? [place(event)] : null;
    pinch = null;
    hover(-1);
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = place(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      hover(nearest(...at), ...at);
      return;
    }
    moved += Math.hypot(at[0] - before[0], at[1] - before[1]);
    pointers.set(event.pointerId, at);
    if (pointers.size === 2) {
      const [a, b] = [...pointers.values()];
      const distance = Math.hypot(a[0] - b[0], a[1] - b[1]), middle = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
      if (pinch) {
        offsetX += middle[0] - pinch.middle[0];
        offsetY += middle[1] - pinch.middle[1];
        zoom(distance / pinch.distance, ...middle);
      }
      pinch = { distance: Math.max(distance, 1), middle };
    } else if (lasso) {
      lasso.push(at);
      draw();
    } else {
      stage.classList.add("is-moving");
      offsetX += at[0] - before[0];
      offsetY += at[1] - before[1];
      keepInView();
      draw();
    }
  });
  const release = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    stage.classList.remove("is-moving");
    pinch = null;
    const path = lasso;
    lasso = null;
    if (event.type === "pointercancel") return draw();
    if (moved < 5) pin(nearest(...place(event)));
    else if (path && path.length > 2) choose(inLasso(path));
    draw();
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => hover(-1));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...place(event));
  }, { passive: false });
  const inView = () => inBox(0, 0, width, height).filter((i) => !found || found[i]);
  let walk = [], walkAt = -1, walkView = "";
  const step = (by) => {
    const view = [scale, offsetX, offsetY].map(Math.round).join();
    if (view !== walkView) {
      const far = (i) => (xs[i] * scale + offsetX - width / 2) ** 2 + (ys[i] * scale + offsetY - height / 2) ** 2;
      walk = inView().sort((a, b) => far(a) - far(b));
      walkAt = by > 0 ? -1 : 0;
      walkView = view;
    }
    if (!walk.length) return;
    walkAt = (walkAt + by + walk.length) % walk.length;
    pin(walk[walkAt]);
  };
  const KEYS = {
    ArrowLeft: () => { offsetX += 60; }, ArrowRight: () => { offsetX -= 60; },
    ArrowUp: () => { offsetY += 60; }, ArrowDown: () => { offsetY -= 60; },
    "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), "−": () => zoom(1 / 1.4), 0: () => fit(),
    n: () => step(1), p: () => step(-1), a: () => choose(inView()),
    Enter: () => { if (pinned >= 0) choose([pinned], !chosen[pinned]); },
    Escape: () => { lasso = null; pin(-1); },
  };
  canvas.addEventListener("keydown", (event) => {
    const act = KEYS[event.key] || KEYS[event.key.toLowerCase()];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
    keepInView();
    draw();
  });
  $("closer").addEventListener("click", () => zoom(1.5));
  $("farther").addEventListener("click", () => zoom(1 / 1.5));
  $("whole").addEventListener("click", () => { fit(); draw(); });
  $("choose-view").addEventListener("click", () => choose(inView()));

  // ---- finding by name
  $("find").addEventListener("input", () => {
    const wanted = $("find").value.trim().toLowerCase();
    foundList = [];
    foundAt = -1;
    found = wanted ? new Uint8Array(n) : null;
    if (wanted) {
      for (let i = 0; i < n; i++) {
        if (uri(i).toLowerCase().includes(wanted)) { found[i] = 1; foundList.push(i); }
      }
    }
    $("found").textContent = wanted ? `${counted(foundList.length, "photo")} found` : "";
    $("next").disabled = $("choose-found").disabled = !foundList.length;
    draw();
  });
  const next = () => {
    const seen = foundList.filter((i) => visible[i]);
    if (!seen.length) return;
    foundAt = (foundAt + 1) % seen.length;
    centre(seen[foundAt]);
    pin(seen[foundAt]);
  };
  $("find").addEventListener("keydown", (event) => { if (event.key === "Enter") next(); });
  $("next").addEventListener("click", next);
  $("choose-found").addEventListener("click", () => choose(foundList.filter((i) => visible[i])));

  // ---- colours, and what is shown
  const list = () => {
    $("legend").replaceChildren(...kind.order.map((k) => {
      const item = document.createElement("li"), label = document.createElement("label");
      const box = document.createElement("input"), dot = document.createElement("i");
      const name = document.createElement("span"), count = document.createElement("b");
      box.type = "checkbox";
      box.checked = Boolean(kind.shown[k]);
      box.addEventListener("change", () => { kind.shown[k] = box.checked ? 1 : 0; update(); });
      dot.style.background = kind.colours[k];
      name.textContent = kind.categories[k].name;
      count.textContent = kind.counts[k].toLocaleString("en");
      label.append(box, dot, name, count);
      item.append(label);
      return item;
    }));
  };
  const show = (value) => { kind.shown.fill(value); list(); update(); };
  $("all").addEventListener("click", () => show(1));
  $("none").addEventListener("click", () => show(0));
  kinds.forEach((each, place) => $("colour").append(new Option(each.name, String(place))));
  $("colour").addEventListener("change", () => { kind = kinds[Number($("colour").value)]; list(); update(); });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(measure).observe(canvas);
  if (wrong) { kind = kinds[2]; $("colour").value = "2"; }
  measure();
  fit();
  list();
  update();
  // For the tests of the page, and for whoever wants to know how long a picture takes.
  window.photoMap = { draw: drawNow, table, state: () => ({ n, numChosen, pinned, scale, least, hovered }),
    at: (i) => [xs[i] * scale + offsetX, ys[i] * scale + offsetY] };
})();
