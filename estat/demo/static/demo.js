// The demo's page: tracks what is clicked, and asks the server once a second what became of it.
(function () {
  'use strict';

  const ROWS = 12;
  const POLL_MS = 1000;
  const ANSWER_MS = 5000;
  const WRONG = {
    s3_down: 'the store is down',
    dlq_full: 'the DLQ is full',
    queue_full: 'the queue is full',
    disk_error: 'the disk is failing',
  };

  const known = new Map(); // events by event_id: {id, at, name, state, line}
  const shown = new Map(); // objects on the page by key
  const find = (id) => document.getElementById(id);

  function track(event) {
    const id = estat.track(event);
    known.set(id, {id, at: Date.now(), name: nameOf(event), state: 'waiting'});
    draw();
  }

  function nameOf({event = 'event', number = ''}) {
    return event + ' ' + number;
  }

  function draw() {
    const rows = Array.from(known.values())
      .reverse()
      .sort((a, b) => b.at - a.at)
      .slice(0, ROWS)
      .map(row);
    find('events').replaceChildren(...rows);
    find('table').hidden = known.size === 0;
    find('no-events').hidden = known.size > 0;
    find('more').textContent = known.size > ROWS ? 'and ' + (known.size - ROWS) + ' earlier ones' : '';
    find('queued').textContent = estat.stats().queued;
  }

  function row(event) {
    const tr = document.createElement('tr');
    tr.title = [event.id, event.line].filter(Boolean).join(', stored as ');
    tr.append(
      cell(new Date(event.at).toLocaleTimeString('en-GB')),
      cell(event.name),
      cell(event.id.slice(0, 8), 'id'),
      cell(event.state, 'state ' + event.state),
      // the end of the stream's name, and the number
      cell(event.line ? event.line.replace(/^.*(?=.{4}-)/, '…') : '', 'id')
    );
    return tr;
  }

  function cell(text, className = '') {
    const td = document.createElement('td');
    td.textContent = text;
    td.className = className;
    return td;
  }

  function span(text, className) {
    const element = document.createElement('span');
    element.textContent = text;
    element.className = className;
    return element;
  }

  function drawObjects(objects) {
    for (const object of objects.slice().reverse()) {
      for (const line of object.events) {
        const body = line?.body || {}; // what others put there may be anything
        const {event_id: id, client_ts: at} = body;
        if (id) known.set(id, {id, at, name: nameOf(body), state: 'stored', line: line.id});
      }
      if (!shown.has(object.key)) {
        shown.set(object.key, card(object));
        find('objects').prepend(shown.get(object.key));
      }
    }
    const keys = new Set(objects.map((object) => object.key));
    for (const [key, element] of shown) {
      if (!keys.has(key)) {
        element.remove();
        shown.delete(key);
      }
    }
    find('no-objects').hidden = shown.size > 0;
  }

  function card(object) {
    const details = document.createElement('details');
    const summary = document.createElement('summary');
    const lines = document.createElement('pre');
    const events = object.count + (object.count === 1 ? ' event' : ' events');
    summary.append(
      // the instance and the stream in the middle are the same all the time
      span(object.key.replace(/^[^/]*\//, '').replace(/_.*_/, '_…_'), 'key'),
      span(events + ', ' + (object.bytes / 1000).toFixed(1) + ' kB', 'size')
    );
    const text = object.events.map((line) => JSON.stringify(line));
    lines.textContent = [object.key].concat(text).join('\n\n');
    details.append(summary, lines);
    return details;
  }

  async function poll() {
    let wrong = [];
    try {
      const answer = await fetch('/demo/state', {signal: AbortSignal.timeout(ANSWER_MS)});
      const state = await answer.json();
      for (const name of ['accepted', 'pending', 'in_dlq', 'stored', 'count']) {
        find(name).textContent = state[name];
      }
      find('directory').textContent = 'In ' + state.directory;
      drawObjects(state.objects);
      wrong = state.problems.map((name) => WRONG[name] || name);
      document.body.className = wrong.length ? 'wrong' : 'up';
    } catch (_) {
      wrong = ['the server does not answer'];
      document.body.className = 'wrong away';
    }
    find('connection').textContent = wrong.join(', ') || 'the server is up';
    draw();
    setTimeout(poll, POLL_MS);
  }

  window.addEventListener('estat', ({detail}) => {
    for (const line of detail.lines) {
      const event = known.get(JSON.parse(line).event_id);
      if (event) event.state = detail.accepted ? 'accepted' : 'refused';
    }
    setTimeout(draw); // once the client has counted them too
  });

  find('click').addEventListener('click', () => track({event: 'click', button: 'Track a click'}));
  find('burst').addEventListener('click', () => {
    for (let number = 1; number <= 100; number++) track({event: 'burst', number});
  });
  find('leave').addEventListener('click', () => track({event: 'leave'}));

  poll();
})();
