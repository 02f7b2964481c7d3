// Conversations with the server that this page came from.
const $ = (id) => document.getElementById(id);
const el = (tag, cls, text) => {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  if (text !== undefined) e.textContent = text;
  return e;
};
const button = (text, label, action) => {
  const b = el('button', 'small', text);
  b.type = 'button';
  if (label) b.setAttribute('aria-label', label);
  b.addEventListener('click', action);
  return b;
};

// ---- what is kept in the browser

const store = {
  get(name, otherwise) {
    try {
      return JSON.parse(localStorage.getItem('gyre.' + name)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem('gyre.' + name, JSON.stringify(value));
    } catch {
      say('The browser keeps nothing more: its storage is full or switched off.');
    }
  },
};
const isTalk = (t) => t && typeof t.id === 'string' && typeof t.title === 'string' && Array.isArray(t.turns);
let talks = store.get('talks', []).filter(isTalk);
let settings = store.get('settings', {});
let here = talks[0]?.id ?? null;
let running = null; // {controller, talk} while an answer comes
let limit = 0;      // tokens of the context; 0: not known

const talk = () => talks.find((t) => t.id === here) ?? null;
const keep = () => store.set('talks', talks);
const say = (text) => { $('status').textContent = text; };

// ---- the list

function newTalk() {
  here = null;
  closeSide();
  draw();
  $('text').focus();
}

function open(id) {
  here = id;
  closeSide();
  draw();
}

function remove(id) {
  const i = talks.findIndex((t) => t.id === id);
  if (i < 0 || !confirm(`Delete "${talks[i].title}"?`)) return;
  if (running?.talk.id === id) running.controller.abort();
  talks.splice(i, 1);
  if (here === id) here = null;
  keep();
  draw();
  $('new').focus();
}

function drawList() {
  $('list').replaceChildren(...talks.map((t) => {
    const li = el('li', t.id === here ? 'here' : ''), title = el('button', 'open', t.title), x = el('button', 'remove', '\u2715');
    title.type = x.type = 'button';
    title.title = t.title;
    if (t.id === here) title.setAttribute('aria-current', 'true');
    title.addEventListener('click', () => open(t.id));
    x.setAttribute('aria-label', `Delete the conversation ${t.title}`);
    x.addEventListener('click', () => remove(t.id));
    li.append(title, x);
    return li;
  }));
}

// ---- the conversation

function figures(turn) {
  const parts = [];
  if (turn.tokens) parts.push(`${turn.tokens} tokens`);
  if (turn.rate) parts.push(`${turn.rate >= 10 ? turn.rate.toFixed(0) : turn.rate.toFixed(1)} tokens/s`);
  if (turn.why === 'length') parts.push('cut by its length');
  if (turn.stopped) parts.push('stopped');
  return parts.join(' \u00b7 ');
}

function drawTurn(turn, i) {
  const box = el('section', `turn ${turn.role}`), name = el('h2', turn.role === 'user' ? 'visually-hidden' : '', turn.role === 'user' ? 'You' : 'Answer');
  box.append(name);
  if (turn.role === 'user') {
    box.append(el('div', 'said', turn.text));
    return box;
  }
  const mine = running?.turn === turn;
  if (turn.thought) {
    const d = el('details', 'thought');
    d.open = mine && !turn.text;
    d.append(el('summary', '', mine && !turn.text ? 'Thinking\u2026' : 'Thoughts'), el('div', '', turn.thought));
    box.append(d);
  }
  const text = el('div', 'md' + (mine && !turn.text ? ' waits' : ''));
  text.append(...markdown(turn.text));
  if (mine && turn.text) (text.lastElementChild?.matches('p') ? text.lastElementChild : text).classList.add('waits');
  box.append(text);
  if (turn.error) {
    const e = el('p', 'error', turn.error);
    e.setAttribute('role', 'alert');
    box.append(e);
  }
  if (mine) return box;
  const tools = el('div', 'tools'), copy = button('Copy', 'Copy the answer', () => copyText(turn.text, copy));
  if (turn.text) tools.append(copy);
  if (i === talk().turns.length - 1) tools.append(button(turn.error ? 'Try again' : 'Regenerate', '', () => regenerate()));
  tools.append(el('span', 'figures', figures(turn)));
  box.append(tools);
  return box;
}

function nearEnd() {
  const log = $('log');
  return log.scrollHeight - log.scrollTop - log.clientHeight < 80;
}

function draw() {
  const t = talk();
  drawList();
  $('system').value = t?.system ?? '';
  if (!t || !t.turns.length) {
    const empty = el('div', 'empty');
    empty.append(el('h2', '', 'What is on your mind?'), el('p', '', 'What you write goes to this server and nowhere else.'));
    $('log').replaceChildren(empty);
  } else $('log').replaceChildren(...t.turns.map(drawTurn));
  $('log').scrollTop = $('log').scrollHeight;
  drawUse();
}

let frame = 0;
function drawLast() {
  if (frame) return;
  frame = requestAnimationFrame(() => {
    frame = 0;
    const t = talk();
    if (!t || !t.turns.length) return;
    const follow = nearEnd(), i = t.turns.length - 1, old = $('log').children[i], opened = old?.querySelector('details')?.open;
    const made = drawTurn(t.turns[i], i), thought = made.querySelector('details');
    if (thought && opened !== undefined && t.turns[i].text) thought.open = opened && !!running;
    if (old) old.replaceWith(made);
    else $('log').append(made);
    if (follow) $('log').scrollTop = $('log').scrollHeight;
    drawUse();
  });
}

function drawUse() {
  const used = talk()?.used ?? 0;
  $('use').hidden = !used;
  $('use-text').textContent = limit ? `${used} / ${limit} tokens` : `${used} tokens`;
  $('meter').value = limit ? Math.min(1, used / limit) : 0;
  $('meter').hidden = !limit;
}

function busy() {
  $('send').hidden = !!running;
  $('stop').hidden = !running;
}

// ---- the server

async function ask(path, body, signal) {
  const headers = { 'Content-Type': 'application/json' };
  if (settings.key) headers.Authorization = `Bearer ${settings.key}`;
  const r = await fetch(path, body ? { method: 'POST', headers, body: JSON.stringify(body), signal } : { headers, signal });
  if (r.ok) return r;
  let why = `The server answers ${r.status}.`;
  try {
    why = (await r.json()).error.message ?? why;
  } catch { /* no error object: the number has to do */ }
  if (r.status === 401) {
    $('settings').showModal();
    $('key').focus();
    why = 'The server asks for an API key: give it in the settings.';
  }
  throw new Error(why);
}

// The events of a stream, one JSON value each.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith('data:')) continue;
      const data = line.slice(5).trim();
      if (data === '[DONE]') return;
      yield JSON.parse(data);
    }
  }
}

function request(t) {
  const messages = t.turns.filter((x) => x !== t.turns.at(-1) && (x.role === 'user' || x.text)).map((x) => ({ role: x.role, content: x.text }));
  if (t.system) messages.unshift({ role: 'system', content: t.system });
  const body = { messages, stream: true, stream_options: { include_usage: true } };
  for (const name of ['temperature', 'top_p', 'top_k', 'min_p', 'repetition_penalty', 'max_tokens', 'seed'])
    if (Number.isFinite(settings[name])) body[name] = settings[name];
  if (settings.thinking) body.chat_template_kwargs = { enable_thinking: settings.thinking === 'on' };
  return body;
}

async function answer(t) {
  const turn = { role: 'assistant', text: '' }, controller = new AbortController();
  t.turns.push(turn);
  running = { controller, talk: t, turn };
  busy();
  draw();
  say('The answer is being written.');
  let begun = 0, pieces = 0;
  try {
    for await (const x of events(await ask('v1/chat/completions', request(t), controller.signal))) {
      if (x.error) throw new Error(x.error.message ?? 'The server failed.');
      const choice = x.choices?.[0], delta = choice?.delta ?? {};
      if (choice?.finish_reason) turn.why = choice.finish_reason;
      if (delta.content || delta.reasoning_content) {
        pieces++;
        begun = begun || performance.now();
        turn.text += delta.content ?? '';
        if (delta.reasoning_content) turn.thought = (turn.thought ?? '') + delta.reasoning_content;
      }
      const seconds = (performance.now() - begun) / 1000;
      if (begun && pieces > 1 && seconds > 0) turn.rate = ((x.usage?.completion_tokens ?? pieces) - 1) / seconds;
      if (x.usage) {
        turn.tokens = x.usage.completion_tokens;
        t.used = x.usage.total_tokens;
      }
      if (t === talk()) drawLast();
    }
  } catch (e) {
    if (controller.signal.aborted) turn.stopped = true;
    else turn.error = e instanceof TypeError ? 'The server cannot be reached.' : e.message;
  }
  running = null;
  keep();
  busy();
  if (t === talk()) {
    const follow = nearEnd();
    draw();
    if (!follow) $('log').children[t.turns.length - 1]?.scrollIntoView({ block: 'nearest' });
  }
  say(turn.error ?? (turn.stopped ? 'Stopped.' : `Answer: ${turn.text.slice(0, 1000)}`));
}

function send() {
  const text = $('text').value.trim();
  if (!text || running) return;
  let t = talk();
  if (!t) {
    t = { id: `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}`, title: text.replace(/\s+/g, ' ').slice(0, 60), system: $('system').value || settings.system || '', turns: [] };
    talks.unshift(t);
    here = t.id;
  } else {
    talks = [t, ...talks.filter((x) => x !== t)];
  }
  t.turns.push({ role: 'user', text });
  $('text').value = '';
  grow();
  keep();
  answer(t);
}

function regenerate() {
  const t = talk();
  if (!t || running || t.turns.at(-1)?.role !== 'assistant') return;
  t.turns.pop();
  answer(t);
}

// ---- fields and keys

function grow() {
  const e = $('text');
  e.style.height = 'auto';
  e.style.height = `${e.scrollHeight + 2}px`;
}

function openSide() {
  $('side').classList.add('open');
  $('veil').hidden = false;
  $('open-side').setAttribute('aria-expanded', 'true');
  $('close-side').focus();
}
function closeSide() {
  if (!$('side').classList.contains('open')) return;
  $('side').classList.remove('open');
  $('veil').hidden = true;
  $('open-side').setAttribute('aria-expanded', 'false');
  $('open-side').focus();
}

const themes = { system: ['\u25D0', 'as the system'], light: ['\u2600', 'light'], dark: ['\u263E', 'dark'] };
function theme(name) {
  const t = themes[name] ? name : 'system';
  settings.theme = t;
  if (t === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = t;
  $('theme').textContent = themes[t][0];
  $('theme').setAttribute('aria-label', `Colours: ${themes[t][1]}`);
  $('theme').title = `Colours: ${themes[t][1]}`;
}

function fillSettings() {
  for (const input of document.querySelectorAll('[data-set]')) input.value = settings[input.dataset.set] ?? '';
  $('key').value = settings.key ?? '';
}

$('form').addEventListener('submit', (e) => {
  e.preventDefault();
  send();
});
$('text').addEventListener('input', grow);
$('text').addEventListener('keydown', (e) => {
  if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) {
    e.preventDefault();
    send();
  }
});
$('stop').addEventListener('click', () => running?.controller.abort());
$('new').addEventListener('click', newTalk);
$('open-side').addEventListener('click', openSide);
$('close-side').addEventListener('click', closeSide);
$('veil').addEventListener('click', closeSide);
$('open-settings').addEventListener('click', () => $('settings').showModal());
$('theme').addEventListener('click', () => {
  const names = Object.keys(themes);
  theme(names[(names.indexOf(settings.theme) + 1) % names.length]);
  store.set('settings', settings);
});
$('system').addEventListener('change', () => {
  const t = talk();
  if (t) t.system = $('system').value;
  else settings.system = $('system').value;
  keep();
  store.set('settings', settings);
});
for (const input of document.querySelectorAll('[data-set]'))
  input.addEventListener('change', () => {
    const number = input.type === 'number', value = number ? parseFloat(input.value) : input.value;
    if (number ? Number.isFinite(value) && input.validity.valid : value) settings[input.dataset.set] = value;
    else delete settings[input.dataset.set];
    store.set('settings', settings);
  });
$('key').addEventListener('change', () => {
  settings.key = $('key').value;
  store.set('settings', settings);
  meet();
});
$('defaults').addEventListener('click', () => {
  settings = { theme: settings.theme, key: settings.key };
  store.set('settings', settings);
  fillSettings();
});
document.addEventListener('keydown', (e) => {
  if (e.key === 'Escape' && !$('settings').open) {
    if ($('side').classList.contains('open')) closeSide();
    else running?.controller.abort();
  } else if (e.altKey && !e.ctrlKey && !e.metaKey && e.code === 'KeyN') {
    e.preventDefault();
    newTalk();
  }
});

// The model's name and its context.
async function meet() {
  try {
    const name = (await (await ask('v1/models')).json()).data[0].id;
    $('model').textContent = name;
    document.title = `${name} \u00b7 gyre`;
    limit = (await (await ask('tokenize', { prompt: '', add_special_tokens: false })).json()).max_model_len ?? 0;
    drawUse();
  } catch (e) {
    say(e.message);
  }
}

theme(settings.theme);
fillSettings();
busy();
draw();
meet();
if (matchMedia('(min-width: 48rem)').matches) $('text').focus();
