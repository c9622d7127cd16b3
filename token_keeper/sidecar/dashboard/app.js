// Takes the single-use code out of the address, before anything else is even loaded.

function taken() {
  const found = location.hash.slice(1);
  if (location.hash) history.replaceState(null, '', location.pathname);
  return found.startsWith('code=') ? found.slice('code='.length) : found;
}

const code = taken();
const { begin } = await import('./board.js');

// The page is open, and somebody opens the address that `token-keeper dashboard` printed.
addEventListener('hashchange', () => {
  const another = taken();
  if (another) begin(another);
});

begin(code);
