// Estat's browser client: collects events and sends them to /collect in batches.
//
//   <script async src="https://collect.example.com/estat.js" data-auto></script>
//   estat.track({event: 'signup', plan: 'free'})
//
// What waits is kept in localStorage, in one entry for each page that is open, and only that
// page writes it. The entry of a page that is gone is taken over by another one. An event is
// forgotten when the server has answered for it, or when the browser took it as a beacon.
// docs/browser.md describes options and guarantees.
(function (window, document, navigator) {
  'use strict';

  // limits of the server, which fills its own in as it serves this file
  const BATCH_EVENTS = 1000;
  const BATCH_BYTES = 1048576;
  const EVENT_BYTES = 16384;

  // browsers carry 64 KiB of beacons and keepalive requests at a time, for the whole page
  const CARRIED_BYTES = Math.min(60000, BATCH_BYTES);
  const STORED_EVENTS = 2000;
  const STORED_CHARS = 1000000;
  const GATHER_MS = 1000; // how long an event waits for others
  const ANSWER_MS = 30000;
  const FIRST_RETRY_MS = 1000;
  const LAST_RETRY_MS = 60000;
  const RENEW_MS = 60000;
  const LEASE_MS = 300000; // an entry not renewed for so long belongs to a page that is gone
  const SETTLE_MS = 500; // how long other pages may take to see what one wrote

  const early = window.estat;
  if (early && early.stats) return; // the page has the script twice

  const script = document.currentScript || {dataset: {}};
  const options = script.dataset;
  const base = script.src || document.baseURI;
  const endpoint = options.endpoint
    ? new URL(options.endpoint, document.baseURI)
    : new URL('/collect', base);
  const prefix = 'estat ' + endpoint + ' ';
  const claim = 'estat claim ' + endpoint;
  // a beacon can't set headers, and a header of our own would cost every request a preflight
  if (options.key) endpoint.searchParams.set('key', options.key);
  let off =
    'respectDnt' in options && (navigator.doNotTrack === '1' || navigator.globalPrivacyControl);

  const entry = prefix + uuid();
  const counts = {accepted: 0, rejected: 0, dropped: 0};
  let queue = []; // events as JSON, the oldest first
  let flight = []; // those of the request under way
  let savedAt = 0; // when our entry was last written; 0: there is none
  let saving = false;
  let leaving = false; // what is left is free to be taken over
  let sending = null;
  let failures = 0; // since the last answer that was no failure
  let retryAt = 0;
  let timer = 0;
  let wakeAt = Infinity;
  let batchEvents = BATCH_EVENTS;

  function uuid() {
    if (crypto.randomUUID) return crypto.randomUUID(); // not on pages without TLS
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => (byte + 256).toString(16).slice(1)).join('');
  }

  function sizeOf(text) {
    return new TextEncoder().encode(text).length;
  }

  // --- what is kept

  // Storage may be forbidden or full: then memory has to do.
  function stored(use) {
    try {
      return use(window.localStorage);
    } catch (_) {
      return null;
    }
  }

  function save() {
    saving = false;
    const lease = leaving ? 1 : Date.now();
    let chars = 0;
    for (const line of flight.concat(queue)) chars += line.length + 1;
    while (queue.length && (flight.length + queue.length > STORED_EVENTS || chars > STORED_CHARS)) {
      chars -= queue.shift().length + 1;
      counts.dropped++;
    }
    const lines = flight.concat(queue);
    if (!lines.length && !savedAt) return;
    savedAt = stored((storage) => {
      storage.removeItem(entry);
      if (lines.length) {
        storage.setItem(entry, [lease].concat(lines).join('\n'));
        return lease;
      }
    }) || 0;
  }

  function saveSoon() {
    if (saving) return;
    saving = true;
    Promise.resolve().then(() => saving && save());
  }

  // After a long sleep, or a stay in the history, what we had may be another page's.
  function giveUpWhatWasTaken() {
    const overdue = savedAt && Date.now() - savedAt > LEASE_MS;
    if (overdue && stored((storage) => storage.getItem(entry) === null)) {
      queue = [];
      flight = [];
      savedAt = 0;
    }
  }

  function abandoned(storage) {
    const now = Date.now();
    return Object.keys(storage).filter(
      (key) =>
        key.startsWith(prefix) &&
        key !== entry &&
        !(Math.abs(now - parseInt(storage.getItem(key), 10)) < LEASE_MS)
    );
  }

  // Take over what pages that are gone have left. Of several that want to, the last to say
  // so does it, once all must have seen that.
  function adopt() {
    if (off || !stored((storage) => abandoned(storage).length)) return;
    const mark = uuid();
    stored((storage) => storage.setItem(claim, mark));
    setTimeout(() => {
      stored((storage) => {
        if (storage.getItem(claim) !== mark) return;
        storage.removeItem(claim);
        for (const key of abandoned(storage)) {
          const lines = storage.getItem(key).split('\n').slice(1);
          storage.removeItem(key);
          queue = lines.concat(queue);
          save();
        }
      });
      wake(0);
    }, SETTLE_MS);
  }

  // --- sending

  function take() {
    let bytes = 0;
    let count = 0;
    while (count < queue.length && count < batchEvents) {
      bytes += sizeOf(queue[count]) + 1;
      if (count && bytes > CARRIED_BYTES) break;
      count++;
    }
    return queue.splice(0, count);
  }

  // Send all that waits; resolve when it is answered for, or when a retry is due later.
  function flush() {
    giveUpWhatWasTaken();
    if (!sending && !leaving) {
      sending = drain().then(() => {
        sending = null;
        if (queue.length) wake(Math.max(0, retryAt - Date.now()));
      });
    }
    return sending || Promise.resolve();
  }

  async function drain() {
    while (queue.length && Date.now() >= retryAt && !leaving) {
      const lines = take();
      flight = lines;
      save();
      const again = settle(lines, await post(lines.join('\n')));
      if (again && flight === lines) queue = lines.concat(queue);
      flight = [];
      save();
    }
  }

  async function post(body) {
    const abort = new AbortController();
    const deadline = setTimeout(() => abort.abort(), ANSWER_MS);
    try {
      const response = await fetch(endpoint, {
        method: 'POST',
        body, // a string goes as text/plain, which needs no preflight
        credentials: 'omit',
        // a failure may mean that others have used up what browsers carry
        keepalive: !failures && sizeOf(body) <= CARRIED_BYTES,
        signal: abort.signal,
      });
      return {
        status: response.status,
        after: response.headers.get('Retry-After'),
        told: (await response.json().catch(() => null)) || {},
      };
    } catch (_) {
      return {status: 0, told: {}}; // no answer, or one that we may not read
    } finally {
      clearTimeout(deadline);
    }
  }

  // Draw the conclusions from an answer; tell whether to send the events again.
  function settle(lines, {status, after, told}) {
    if (!status || status === 408 || status === 429 || status >= 500) {
      const most = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * Math.pow(2, failures++));
      const backoff = most * (0.5 + Math.random() / 2);
      retryAt = Date.now() + (after > 0 ? after * 1000 + Math.random() * most : backoff);
      return true;
    }
    failures = retryAt = 0;
    if (status === 413 && lines.length > 1) {
      batchEvents = Math.ceil(lines.length / 2);
      return true;
    }
    if (status === 403) { // pages of this origin are not wanted
      off = true;
      lines = lines.concat(queue.splice(0));
    }
    const accepted = status < 300 ? lines.length - (told.rejected || 0) : 0;
    const rejected = lines.length - accepted;
    counts.accepted += accepted;
    counts.rejected += rejected;
    const {errors = [], ids = []} = told;
    const detail = {status, accepted, rejected, errors, ids, lines};
    window.dispatchEvent(new CustomEvent('estat', {detail}));
    return false;
  }

  // Look after what waits in so many milliseconds; sooner, to renew its entry.
  function wake(delay) {
    const at = Date.now() + delay;
    if (timer && at >= wakeAt) return;
    clearTimeout(timer);
    wakeAt = at;
    timer = setTimeout(() => {
      timer = 0;
      giveUpWhatWasTaken();
      if (sending || !queue.length) return; // the end of a request looks after the rest
      if (Date.now() >= retryAt) {
        flush();
      } else {
        save();
        wake(retryAt - Date.now());
      }
    }, Math.min(delay, RENEW_MS));
  }

  // --- what pages call

  function estat(method, ...values) {
    return estat[method](...values);
  }

  // Queue an event; return its id, or nothing if it can't be sent.
  estat.track = function (event) {
    if (off) return undefined;
    let line;
    let id;
    try {
      if (!event || typeof event !== 'object' || Array.isArray(event)) throw event;
      const whole = Object.assign({event_id: uuid(), client_ts: Date.now()}, event);
      id = whole.event_id;
      line = JSON.stringify(whole);
      if (sizeOf(line) > EVENT_BYTES) throw event;
    } catch (_) {
      counts.rejected++;
      return undefined;
    }
    giveUpWhatWasTaken();
    queue.push(line);
    saveSoon();
    if (leaving) beacon();
    else if (!sending) wake(Math.max(GATHER_MS, retryAt - Date.now()));
    return id;
  };

  estat.page = function (more) {
    const page = {event: 'page_view', url: location.href, referrer: document.referrer};
    return estat.track(Object.assign(page, {title: document.title}, more));
  };

  estat.flush = flush;

  estat.stats = function () {
    return Object.assign({queued: queue.length + flight.length}, counts);
  };

  // --- what happens to the page

  function beacon() {
    // what failed just now would fail again, and nobody would know: the next page sends it
    while (!failures && navigator.onLine && queue.length) {
      const lines = take();
      if (!navigator.sendBeacon(endpoint, lines.join('\n'))) {
        queue = lines.concat(queue);
        break;
      }
    }
    save();
  }

  window.addEventListener('pagehide', () => {
    leaving = true;
    clearTimeout(timer);
    timer = 0;
    beacon();
  });

  window.addEventListener('pageshow', (event) => {
    if (!event.persisted) return; // else it is back from the history
    leaving = false;
    giveUpWhatWasTaken();
    save();
    if (queue.length) wake(0);
    start();
  });

  document.addEventListener('visibilitychange', () => {
    // a hidden page may never be heard of again, and the answer counts if it is
    if (document.visibilityState === 'hidden') flush();
    else adopt();
  });

  window.addEventListener('online', () => {
    retryAt = 0;
    flush();
  });

  function start() {
    adopt();
    if (!('auto' in options)) return;
    if (document.prerendering) {
      document.addEventListener('prerenderingchange', () => estat.page(), {once: true});
    } else {
      estat.page();
    }
  }

  window.estat = estat;
  start();
  for (const call of (early && early.q) || []) estat(...call);
})(window, document, navigator);
