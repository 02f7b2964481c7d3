// The style sheet of report.html: light and dark by the reader's own setting, two columns that become one, and paper.
#pragma once

// One rule or a few in each string; a single literal may not be so long.
static const char *const gyre_report_style[] = {
    ":root{color-scheme:light "
    "dark;--bg:#fbfbfa;--card:#fff;--ink:#1c1d21;--soft:#666a73;--line:#e4e4e1;--a:#c2630a;--b:#1f5fd0;"
    "--z0:#1a7f4b;--z1:#6a8f1f;--z2:#c28a0c;--z3:#b93a32;--tint:#f3f3f0}",
    "@media(prefers-color-scheme:dark){:root{--bg:#131417;--card:#1b1d21;--ink:#e8e8e6;--soft:#9a9ea8;--line:#30333a;"
    "--a:#f0a04b;--b:#7aa8ff;--z0:#2f9c63;--z1:#7f9f35;--z2:#c9982a;--z3:#cf5a50;--tint:#22252a}}",
    "*{box-sizing:border-box}",
    "body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.55 system-ui,-apple-system,\"Segoe "
    "UI\",Roboto,sans-serif}",
    "main{max-width:1080px;margin:0 auto;padding:40px 28px 64px}",
    "h1{font-size:28px;line-height:1.2;margin:0;letter-spacing:-.015em}h2{font-size:18px;margin:0 0 "
    "4px;letter-spacing:-.005em}"
    "h3{font-size:14px;margin:0 0 6px;font-weight:600}",
    "p{margin:0 0 14px}.soft,figcaption{color:var(--soft)}.lead{color:var(--soft);margin:6px 0 26px}",
    "section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:22px 24px 20px;margin:0 0 "
    "18px}",
    ".hero{display:grid;grid-template-columns:minmax(0,15rem) minmax(0,1fr);gap:8px 36px;align-items:center}",
    ".verdict{font-size:38px;line-height:1.1;font-weight:700;letter-spacing:-.02em}"
    ".v0{color:var(--z0)}.v1{color:var(--z1)}.v2{color:var(--z2)}.v3{color:var(--z3)}",
    ".warn{border-left:4px solid var(--z3);background:var(--tint);padding:10px 14px;border-radius:0 8px 8px "
    "0;margin:14px 0 0}",
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px;margin:0 0 18px}",
    ".tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 18px}"
    ".tile b{display:block;font-size:24px;font-weight:650;letter-spacing:-.015em;line-height:1.3}.tile "
    "span{color:var(--soft);font-size:13px}",
    ".two{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:18px 28px}.two>*{min-width:0}",
    "table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}"
    "th,td{text-align:left;padding:6px 12px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}"
    "tbody tr:last-child>td,tbody tr:last-child>th{border-bottom:0}thead "
    "th{font-weight:600;font-size:13px;color:var(--soft);vertical-align:bottom}"
    "tbody th{font-weight:400}.facts "
    "th{color:var(--soft);width:42%}td.n,th.n{text-align:right;padding-right:0;padding-left:14px}"
    "td.best{font-weight:650}th.pair{text-align:center;padding:6px 0 0 "
    "14px;border-bottom:0}.scroll{overflow-x:auto}.scroll th{white-space:nowrap}",
    "pre{background:var(--tint);border-radius:8px;padding:14px 16px;margin:0;overflow-x:auto;"
    "font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}code{font:13px "
    "ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}",
    "svg{display:block;width:100%;height:auto;font:12px system-ui,sans-serif}svg text{fill:var(--soft)}"
    "text.mid{text-anchor:middle}text.end{text-anchor:end}text.strong{fill:var(--ink);font-weight:650}",
    ".grid{stroke:var(--line);fill:none}.axis{stroke:var(--soft);fill:none}.bar{fill:var(--line)}.bar.chosen{fill:var(-"
    "-b)}.bars{max-width:720px;font-size:11px}",
    ".line path{fill:none;stroke-width:2;stroke-linejoin:round}.a path{stroke:var(--a)}.b path{stroke:var(--b)}.a "
    "circle{fill:var(--a)}"
    ".b circle{fill:var(--b)}.thin path{stroke-width:1.2;stroke-dasharray:3 3;opacity:.75}.thin circle{opacity:.55}",
    ".scale "
    "text.zone{fill:#fff;font-weight:600;font-size:11px}.zone0{fill:var(--z0)}.zone1{fill:var(--z1)}.zone2{fill:var(--"
    "z2)}.zone3{fill:var(--z3)}"
    ".mark.a path{fill:var(--a);stroke:none}.mark.b path{fill:var(--b);stroke:none}.mark "
    "text{font-weight:600;fill:var(--ink)}",
    ".key{display:flex;flex-wrap:wrap;gap:4px 20px;font-size:13px;color:var(--soft);margin:0 0 8px}.key "
    "i{display:inline-block;width:18px;"
    "height:0;border-top:3px solid;vertical-align:middle;margin-right:7px}.key .a{border-color:var(--a)}.key "
    ".b{border-color:var(--b)}"
    ".key .thin{border-top-width:2px;border-top-style:dashed}",
    "figure{margin:0}figcaption{font-size:13px;margin-top:6px}img{display:block;width:100%;height:300px;image-"
    "rendering:pixelated;border-radius:6px}"
    ".ramp{display:flex;align-items:center;gap:10px;font-size:13px;color:var(--soft);margin:14px 0 0}.ramp "
    "img{width:180px;height:12px;border-radius:3px}",
    "details{margin-top:14px}summary{cursor:pointer;color:var(--b);font-weight:600;font-size:14px}details>.scroll{"
    "margin-top:10px}",
    "footer{color:var(--soft);font-size:13px;padding:4px 4px 0}",
    "@media screen and (max-width:760px){main{padding:24px "
    "14px}.hero,.two{grid-template-columns:minmax(0,1fr)}section{padding:18px 16px}}",
    "@media "
    "print{:root{--bg:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#ccc;--tint:#f4f4f2;--a:#c2630a;--b:#1f5fd0}body{"
    "font-size:11px}"
    "main{max-width:none;padding:2px}table,thead "
    "th,code{font-size:9.5px}.scroll{overflow:visible}th.n,td.n{padding-left:8px}td,th{padding-top:3px;padding-bottom:"
    "3px}section{padding:14px "
    "16px}img{height:200px}h2,h3{break-after:avoid}section,.tile{break-inside:avoid;border-radius:0}section.long{break-"
    "inside:auto}tr,figure,svg{break-inside:avoid}"
    "details:not([open]){display:none}summary{color:var(--ink)}*{print-color-adjust:exact;-webkit-print-color-adjust:"
    "exact}}",
};
