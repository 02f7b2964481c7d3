'use strict';
// Markdown to nodes of the document. Text only ever becomes text nodes, and of attributes only an address that was looked
// at: whatever a model writes, it is no markup and no script.
const markdown = (() => {
  const make = (tag, ...children) => {
    const e = document.createElement(tag);
    e.append(...children);
    return e;
  };
  const safe = (address) => /^(https?:\/\/|mailto:)/i.test(address) ? address : null;

  // Code, strong, emphasis, struck, links, addresses, line breaks. Nested as deep as `depth` allows.
  // Every length is bounded, or runs of one sign would take the square of theirs.
  const SPAN = new RegExp([
    /(?<!`)(`{1,4})(?!`)([\s\S]{0,2000}?[^`])\1(?!`)/, /\\([!-/:-@[-`{-~])/,
    /\[([^[\]\n]{1,300})\]\(\s{0,9}<?([^\s()<>]{1,2000}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,200}){0,3})>?(?:\s{1,9}"[^"\n]{0,200}")?\s{0,9}\)/,
    /(?<![*_])(\*\*|__)(?=[^\s*_])([\s\S]{0,1500}?\S)\6/, /(?<!~)~~(?=[^\s~])([\s\S]{0,1500}?\S)~~/,
    /(?<![\w*])\*(?=[^\s*])([\s\S]{0,1500}?[^\s*])\*(?![\w*])/, /(?<![\w_])_(?=[^\s_])([\s\S]{0,1500}?[^\s_])_(?!\w)/,
    /(https?:\/\/[^\s<>"'`)\]]{0,2000}[^\s<>"'`)\].,;:!?])/, /( {2,9}|\\)\n/,
  ].map((x) => x.source).join('|'), 'g');
  function spans(text, depth = 0) {
    const out = [];
    let last = 0;
    if (depth > 8) return [text];
    for (const m of text.matchAll(SPAN)) {
      if (m.index > last) out.push(text.slice(last, m.index));
      last = m.index + m[0].length;
      if (m[1]) out.push(make('code', m[2].replace(/^ (.*\S.*) $/s, '$1').replace(/\n/g, ' ')));
      else if (m[3]) out.push(m[3]);
      else if (m[4]) {
        const address = safe(m[5]);
        if (!address) {
          out.push(m[0]);
          continue;
        }
        out.push(link(address, spans(m[4], depth + 1)));
      } else if (m[6]) out.push(make('strong', ...spans(m[7], depth + 1)));
      else if (m[8]) out.push(make('del', ...spans(m[8], depth + 1)));
      else if (m[9] || m[10]) out.push(make('em', ...spans(m[9] || m[10], depth + 1)));
      else if (m[11]) out.push(link(m[11], [m[11]]));
      else out.push(make('br'));
    }
    if (last < text.length) out.push(text.slice(last));
    return out;
  }
  function link(address, children) {
    const a = make('a', ...children);
    a.href = address;
    a.rel = 'noopener noreferrer nofollow';
    a.target = '_blank';
    return a;
  }

  function code(language, text) {
    const copy = make('button', 'Copy');
    copy.type = 'button';
    copy.className = 'small';
    copy.setAttribute('aria-label', 'Copy the code');
    copy.addEventListener('click', () => copyText(text, copy));
    const row = make('div', make('span', language || 'text'), copy), block = make('div', row, make('pre', make('code', text)));
    row.className = 'row';
    block.className = 'block';
    return block;
  }

  const ITEM = /^( {0,9})([-*+]|\d{1,9}[.)])( +|$)/;
  const cells = (line) => line.trim().replace(/^\||\|$/g, '').split(/(?<!\\)\|/).map((x) => x.trim().replace(/\\\|/g, '|'));

  function table(lines) {
    const row = (tag, line) => make('tr', ...cells(line).map((x) => make(tag, ...spans(x))));
    const body = make('tbody', ...lines.slice(2).map((x) => row('td', x)));
    const wide = make('div', make('table', make('thead', row('th', lines[0])), body));
    wide.className = 'wide';
    return wide;
  }

  // A list from lines[i]; [node, the line behind it].
  function list(lines, i, depth) {
    const first = ITEM.exec(lines[i]), ordered = /\d/.test(first[2]), out = make(ordered ? 'ol' : 'ul');
    if (ordered && parseInt(first[2], 10) !== 1) out.start = parseInt(first[2], 10);
    let loose = false;
    while (i < lines.length) {
      const m = ITEM.exec(lines[i]);
      if (!m || m[1].length < first[1].length || m[1].length > first[1].length + 1 || /\d/.test(m[2]) !== ordered) break;
      const indent = m[0].length, inner = [lines[i].slice(indent)];
      for (i++; i < lines.length; i++) {
        if (!lines[i].trim()) {
          if (i + 1 < lines.length && (/^ {2,}/.test(lines[i + 1]) || ITEM.test(lines[i + 1]))) {
            if (!ITEM.test(lines[i + 1]) || ITEM.exec(lines[i + 1])[1].length > m[1].length) inner.push('');
            loose = loose || inner.length > 1;
            continue;
          }
          break;
        }
        const next = ITEM.exec(lines[i]), blank = !lines[i - 1].trim();
        if (next && next[1].length <= m[1].length + 1) break;
        if (!next && !/^ {2,}/.test(lines[i]) && (blank || /^(```|~~~|#{1,6} |>)/.test(lines[i]))) break;
        inner.push(lines[i].replace(new RegExp(`^ {0,${indent}}`), ''));
      }
      const item = make('li');
      const children = blocks(inner, depth + 1);
      if (children.length && children[0].tagName === 'P' && !loose) item.append(...children[0].childNodes, ...children.slice(1));
      else item.append(...children);
      out.append(item);
    }
    return [out, i];
  }

  function blocks(lines, depth) {
    const out = [];
    if (depth > 8) return [make('p', lines.join('\n'))];
    for (let i = 0; i < lines.length;) {
      const line = lines[i], fence = /^ {0,3}(```+|~~~+)\s*([\w+#.-]*)[^`]*$/.exec(line), head = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/.exec(line);
      if (!line.trim()) i++;
      else if (fence) {
        const inner = [];
        for (i++; i < lines.length && !(lines[i].trim().startsWith(fence[1]) && !lines[i].trim().replace(/^[`~]+/, '')); i++) inner.push(lines[i]);
        i++;
        out.push(code(fence[2], inner.join('\n')));
      } else if (head) {
        out.push(make('h' + Math.min(6, head[1].length + 2), ...spans(head[2])));
        i++;
      } else if (/^ {0,3}([-*_])( *\1){2,} *$/.test(line)) {
        out.push(make('hr'));
        i++;
      } else if (/^ {0,3}>/.test(line)) {
        const inner = [];
        for (; i < lines.length && /^ {0,3}>/.test(lines[i]); i++) inner.push(lines[i].replace(/^ {0,3}> ?/, ''));
        out.push(make('blockquote', ...blocks(inner, depth + 1)));
      } else if (line.includes('|') && i + 1 < lines.length && /^ *\|?( *:?-+:? *\|)+ *(:?-+:? *)?\|? *$/.test(lines[i + 1]) && cells(line).length === cells(lines[i + 1]).length) {
        let end = i + 2;
        while (end < lines.length && lines[end].includes('|')) end++;
        out.push(table(lines.slice(i, end)));
        i = end;
      } else if (ITEM.test(line)) {
        const [node, next] = list(lines, i, depth);
        out.push(node);
        i = next;
      } else {
        const inner = [line];
        for (i++; i < lines.length && lines[i].trim() && !/^ {0,3}(#{1,6}\s|>|```|~~~)/.test(lines[i]) && !(ITEM.test(lines[i]) && !/^ *\d/.test(lines[i])) && !/^ *1[.)] /.test(lines[i]); i++) inner.push(lines[i]);
        out.push(make('p', ...spans(inner.join('\n').trim())));
      }
    }
    return out;
  }
  return (text) => blocks(text.replace(/\r\n?/g, '\n').replace(/\t/g, '    ').split('\n'), 0);
})();

async function copyText(text, button) {
  const before = button.textContent;
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    done = false; // the browser forbids it: over plain HTTP from another host
  }
  button.textContent = done ? 'Copied' : 'Not allowed';
  setTimeout(() => { button.textContent = before; }, 1500);
}
