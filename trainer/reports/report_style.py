"""The style sheet of the HTML report. The page contains it, so the page needs no other file."""

CSS = """
:root{--ink:#1c2430;--soft:#5d6878;--line:#e2e6ec;--paper:#fff;--ground:#f4f6f9;--blue:#0072b2;--red:#b3261e}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,"DejaVu Sans",sans-serif}
main{max-width:1060px;margin:0 auto;padding:20px 16px 60px}
h1{font-size:25px;line-height:1.25;margin:8px 0 2px}
h2{font-size:19px;margin:0 0 10px}
h3{font-size:15px;margin:20px 0 6px}
p{margin:6px 0 10px}
section{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:18px;margin:16px 0}
.soft,.tick{color:var(--soft);fill:var(--soft)}
.soft{font-size:13.5px}
.alarm{background:#fdecea;border-color:#e8a09a;color:#7a140e}
.note{background:#fff8e5;border-color:#ecd28a}
.note ul,.alarm ul{margin:0;padding-left:18px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(230px,1fr));gap:12px;margin:14px 0}
.tile{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:12px 14px}
.tile b{display:block;font-size:25px;line-height:1.25;font-weight:650}
.tile span{color:var(--soft);font-size:13px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:20px;align-items:start}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:4px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:600}
th:first-child,td:first-child,td.words,th.words{text-align:left}
td.words{white-space:normal;overflow-wrap:anywhere;min-width:140px}
td i.bar{display:inline-block;height:9px;margin-right:7px;background:var(--blue);border-radius:2px;opacity:.75}
svg{width:100%;height:auto;font:12px system-ui,-apple-system,"Segoe UI",Roboto,Arial,"DejaVu Sans",sans-serif}
svg text{fill:var(--ink)}
svg .tick{fill:var(--soft)}
svg .grid{stroke:var(--line)}
svg .axis{stroke:#9aa5b4;fill:none}
svg .diagonal{stroke:#9aa5b4;stroke-dasharray:5 4}
svg .cell{stroke:var(--line)}
svg .cell-dark{fill:#fff}
.legend{font-size:13px;margin:2px 0 0;display:flex;flex-wrap:wrap;gap:4px 14px}
.legend i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:5px;vertical-align:-1px}
.photos{display:grid;grid-template-columns:repeat(auto-fill,minmax(148px,1fr));gap:14px}
figure{margin:0;font-size:12.5px;line-height:1.35;overflow-wrap:anywhere}
figure img,figure .blank{width:100%;aspect-ratio:1;border-radius:6px;display:block;margin-bottom:5px;background:#e9edf2}
figure .blank{display:flex;align-items:center;justify-content:center;color:var(--soft);padding:10px;text-align:center}
figure .uri{color:var(--soft);display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:3;overflow:hidden}
.wrong{color:var(--red);font-weight:600}
details summary{cursor:pointer;color:var(--soft);margin:8px 0}
@media (max-width:520px){h1{font-size:21px}section{padding:14px 12px}.tile b{font-size:21px}.tiles{gap:8px;
grid-template-columns:1fr 1fr}.photos{grid-template-columns:1fr 1fr}}
@media print{body{background:#fff}section{break-inside:avoid}}
"""
