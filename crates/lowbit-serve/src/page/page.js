'use strict';
const at = (id) => document.getElementById(id);
const store = (key, value) => { try { sessionStorage.setItem(key, value); } catch { /* kept in the page alone */ } };
const kept = (key) => { try { return sessionStorage.getItem(key) || ''; } catch { return ''; } };

let turns = [];
let under_way = null;

const headers = () => {
  const key = at('key').value.trim();
  return key ? { authorization: 'Bearer ' + key } : {};
};

const show = (kind, text) => {
  const turn = document.createElement('div');
  turn.className = 'turn ' + kind;
  turn.textContent = text;
  at('turns').append(turn);
  at('turns').scrollTop = at('turns').scrollHeight;
  return turn;
};

const hint = (text) => {
  const line = document.createElement('p');
  line.className = 'hint';
  line.textContent = text;
  at('turns').replaceChildren(line);
};

const fault = async (response) => {
  try {
    return (await response.json()).error.message;
  } catch {
    return 'the server answered with status ' + response.status;
  }
};

const who = async () => {
  const response = await fetch('v1/models', { headers: headers() });
  if (response.status === 401) {
    at('settings').open = true;
    at('model').textContent = 'wants an API key (Settings)';
    return;
  }
  if (!response.ok) {
    at('model').textContent = await fault(response);
    return;
  }
  const model = (await response.json()).data[0];
  at('model').textContent = model.id + ' · ' + model.max_model_len + ' tokens of context';
  if (!turns.length) {
    hint(model.has_chat_template ? 'Say something.' : 'This model knows no chats: it continues what is said last.');
  }
};

/* The events of a response, one JSON value after the other. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split('\n\n');
    rest = parts.pop();
    for (const part of parts) {
      if (!part.startsWith('data: ') || part === 'data: [DONE]') continue;
      yield JSON.parse(part.slice(6));
    }
  }
}

const answer = async (box, signal) => {
  const system = at('system').value.trim();
  const asked = { messages: system ? [{ role: 'system', content: system }, ...turns] : turns, stream: true };
  asked.stream_options = { include_usage: true };
  if (at('temperature').value !== '') asked.temperature = Number(at('temperature').value);
  if (at('most').value !== '') asked.max_tokens = Number(at('most').value);
  const start = performance.now();
  const request = { method: 'POST', headers: { 'content-type': 'application/json', ...headers() }, body: JSON.stringify(asked), signal };
  const response = await fetch('v1/chat/completions', request);
  if (!response.ok) throw new Error(await fault(response));
  let first = 0;
  let pieces = 0;
  for await (const event of events(response)) {
    if (event.error) throw new Error(event.error.message);
    const text = event.choices.length ? event.choices[0].delta.content || '' : '';
    if (text) {
      first = first || performance.now();
      pieces += 1;
      const below = at('turns').scrollHeight - at('turns').scrollTop - at('turns').clientHeight < 60;
      box.textContent += text;
      if (below) at('turns').scrollTop = at('turns').scrollHeight;
    }
    const tokens = event.usage ? event.usage.completion_tokens : pieces;
    const seconds = (performance.now() - first) / 1000;
    const rate = first && tokens > 1 && seconds > 0 ? ((tokens - 1) / seconds).toFixed(1) + ' tokens/s · ' : '';
    if (first) at('speed').textContent = tokens + ' tokens · ' + rate + 'first after ' + ((first - start) / 1000).toFixed(2) + ' s';
  }
};

const busy = (is) => {
  at('send').hidden = is;
  at('stop').hidden = !is;
};

at('form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const text = at('text').value;
  if (under_way || !text.trim()) return;
  if (!turns.length) at('turns').replaceChildren();
  at('text').value = '';
  turns.push({ role: 'user', content: text });
  show('user', text);
  const box = show('assistant', '');
  under_way = new AbortController();
  busy(true);
  try {
    await answer(box, under_way.signal);
  } catch (error) {
    if (error.name !== 'AbortError') show('fault', error.message);
  }
  if (box.textContent) {
    turns.push({ role: 'assistant', content: box.textContent });
  } else {
    turns.pop();
    box.remove();
  }
  under_way = null;
  busy(false);
  at('text').focus();
});

at('text').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at('form').requestSubmit();
  }
});
at('stop').addEventListener('click', () => under_way && under_way.abort());
at('new').addEventListener('click', () => {
  if (under_way) under_way.abort();
  turns = [];
  at('turns').replaceChildren();
  at('speed').textContent = '';
  who();
  at('text').focus();
});
at('key').value = kept('lowbit-key');
at('key').addEventListener('change', () => { store('lowbit-key', at('key').value); who(); });
who().catch((error) => { at('model').textContent = error.message; });
