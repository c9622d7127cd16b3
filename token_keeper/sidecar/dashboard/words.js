// How states, events and times are said. Pure: knows neither the page nor a clock.

const LONGEST = 600;
// Characters that reorder or hide their neighbours are spelled out, so that a text looks like what it is.
const TRICKY =
  /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/gu;

export const KINDS = {
  tokenUpdated: 'Token published',
  tokenAboutToExpire: 'Refresh due',
  tokenExpired: 'Expired',
  tokenDenied: 'Denied by a server',
  recovered: 'Recovered',
  refreshFailed: 'Fetch failed',
  refreshRefused: 'Refused by the backend',
  recoveryFailed: 'Recovery failed',
  clockJumped: 'Clock jumped',
};

const STATUSES = {
  fresh: 'Fresh',
  stale: 'Stale',
  expired: 'Expired',
  denied: 'Denied',
  absent: 'Absent',
  closed: 'Closed',
};

export function visible(text) {
  const whole = String(text ?? '');
  const cut = whole.length > LONGEST ? `${whole.slice(0, LONGEST)}…` : whole;
  return cut.replace(TRICKY, (c) => `\\u${c.codePointAt(0).toString(16).padStart(4, '0')}`);
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString('en')} ${number === 1 ? one : many}`;
}

export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 120) return `${s} s`;
  const m = Math.floor(s / 60);
  if (m < 120) return `${m} min`;
  const h = Math.floor(m / 60);
  if (h < 48) return m % 60 ? `${h} h ${m % 60} min` : `${h} h`;
  return count(Math.floor(h / 24), 'day');
}

const TIME = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });
const DATE = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', year: 'numeric' });

export function clockTime(at, now) {
  const when = new Date(at * 1000);
  if (Number.isNaN(when.getTime())) return 'a time that cannot be shown';
  const isNear = Math.abs(at - now) < 43_200;
  return isNear ? TIME.format(when) : `${DATE.format(when)}, ${TIME.format(when)}`;
}

export function moment(at, now) {
  if (at === null || at === undefined) return '–';
  const ahead = at - now;
  if (ahead < 1 && ahead > -5) return 'now';
  const gap = duration(Math.abs(ahead));
  return `${ahead > 0 ? `in ${gap}` : `${gap} ago`}, ${clockTime(at, now)}`;
}

export function statusAt(row, now) {
  const isServed = row.status === 'fresh' || row.status === 'stale';
  return isServed && row.expires_at !== null && now >= row.expires_at ? 'expired' : row.status;
}

export function statusWord(row, now) {
  const status = statusAt(row, now);
  return STATUSES[status] ?? visible(status);
}

export function phaseWord(row) {
  if (row.phase === 'refused') return 'refused by the backend';
  if (row.phase === 'backing_off') return 'backing off';
  return row.phase === 'fetching' ? 'fetching' : '';
}

// Seconds for which the token still serves; Infinity without a known expiry.
export function usableFor(row, now) {
  const status = statusAt(row, now);
  if (status !== 'fresh' && status !== 'stale') return 0;
  return row.expires_at === null ? Infinity : Math.max(0, row.expires_at - now);
}

function attempts(row) {
  if (row.attempts_left === null || row.attempts_left === undefined) return '';
  if (row.attempts_left >= 100) return '100 or more attempts fit';
  return row.attempts_left === 1 ? '1 attempt fits' : `${row.attempts_left} attempts fit`;
}

export function budget(row, now) {
  const left = usableFor(row, now);
  if (left === Infinity) return 'Usable; when it expires is not known';
  if (left > 0) return [`Usable for ${duration(left)}`, attempts(row)].filter(Boolean).join('; ');
  const status = statusAt(row, now);
  if (status === 'expired' && row.expires_at !== null) {
    return `Not usable: expired ${duration(now - row.expires_at)} ago`;
  }
  if (status === 'denied') return 'Not usable: withheld, because a server denied it';
  if (status === 'closed') return 'Not usable: no longer kept';
  const hasFailed = row.failures > 0 || row.phase === 'refused';
  return hasFailed ? 'Not usable: no token came yet' : 'Waiting for the first token';
}

export function reporters(row) {
  return (row.denied_by ?? []).map((by) => (by === '' ? 'the usual readers' : visible(by))).join(', ');
}

// What is wrong with a token, and how badly: 2 is unusable, 1 is trouble ahead, 0 is nothing.
export function trouble(row, now) {
  const status = statusAt(row, now);
  if (status === 'expired') return { level: 2, says: 'has expired' };
  if (status === 'denied') return { level: 2, says: 'was denied by a server and is withheld' };
  if (status === 'closed') return { level: 2, says: 'is no longer kept' };
  if (status === 'absent') return nothingYet(row);
  const usable = usableFor(row, now);
  const left = Number.isFinite(usable) ? `; usable for ${duration(usable)}` : '';
  const broken = (row.sinks ?? []).filter((sink) => sink.error).length;
  const says = [];
  if (row.phase === 'refused') says.push(`is refused by its backend${left}`);
  else if (row.failures) says.push(`could not be refreshed (${count(row.failures, 'try', 'tries')})${left}`);
  if (broken) says.push(`has ${count(broken, 'file')} that cannot be written`);
  if (row.denied_by?.length) says.push(`is denied to ${reporters(row)}`);
  if (says.length) return { level: 1, says: says.join('; ') };
  return { level: 0, says: '' };
}

function nothingYet(row) {
  if (row.phase === 'refused') return { level: 2, says: 'has no token: its backend refuses to issue one' };
  if (row.failures) return { level: 2, says: `has no token: ${count(row.failures, 'fetch', 'fetches')} failed` };
  return { level: 1, says: 'waits for its first token' };
}

export function eventSentence(event) {
  const token = `generation ${event.generation}`;
  const streak = event.failures > 1 ? `, ${event.failures} in a row` : '';
  const why = event.error ? `: ${visible(event.error)}` : '';
  switch (event.kind) {
    case 'tokenUpdated':
      return `${token} is published`;
    case 'tokenAboutToExpire':
      return `${token} is about to expire; its refresh is due`;
    case 'tokenExpired':
      return `${token} expired`;
    case 'tokenDenied':
      return `a server denied ${token}`;
    case 'recovered':
      return `recovered: ${token} is accepted`;
    case 'refreshFailed':
      return `a fetch failed${streak}${why}`;
    case 'refreshRefused':
      return `the backend refuses to issue a token${why}`;
    case 'recoveryFailed':
      return `recovery failed${why || diagnosis(event)}`;
    case 'clockJumped':
      return 'a clock jumped; the token is fetched anew';
    default:
      return visible(event.kind) + why;
  }
}

function diagnosis(event) {
  const lines = event.diagnosis ?? [];
  return lines.length ? `: ${lines.map(visible).join('; ')}` : '';
}

const TROUBLES_TOLD = 3;
const STUCK =
  'The scheduler does not tick: tokens are not being refreshed. Restart the sidecar, and keep its log.';

// The answer to "is all well?", for the whole sidecar. Each line says which token it is about, if one.
export function verdict(known, now) {
  const { rows, ready, live } = known;
  if (live === false) {
    return { level: 2, title: 'Not ready', says: [{ text: STUCK }] };
  }
  if (!rows.length) return { level: 2, title: 'Not ready', says: [{ text: 'No token is configured.' }] };
  const troubled = rows.map((row) => [row, trouble(row, now)]).filter(([, wrong]) => wrong.level);
  const down = troubled.filter(([, wrong]) => wrong.level === 2).length;
  if (!troubled.length && ready === false) return almost(rows);
  if (!troubled.length) return { level: 0, title: 'Ready', says: [{ text: well(rows) }] };
  troubled.sort(([, a], [, b]) => b.level - a.level);
  const worst = troubled.slice(0, TROUBLES_TOLD);
  const says = worst.map(([row, wrong]) => ({ name: row.name, text: `${wrong.says}.` }));
  const more = troubled.length - says.length;
  if (more) says.push({ text: `${count(more, 'more token is', 'more tokens are')} in trouble.` });
  if (down || ready === false) return { level: 2, title: 'Not ready', says };
  return { level: 1, title: 'Ready, with trouble ahead', says };
}

function well(rows) {
  if (rows.length === 1) return 'The token is usable and in time.';
  return `All ${rows.length.toLocaleString('en')} tokens are usable and in time.`;
}

function almost(rows) {
  const text = `${well(rows)} But one is about to end, or a file is behind its token.`;
  return { level: 2, title: 'Not ready', says: [{ text }] };
}
