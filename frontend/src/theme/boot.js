// Runs before the first paint: the theme the reader chose, or the system's.
;(function () {
  var chosen = null
  try {
    chosen = localStorage.getItem('smartlink.theme')
  } catch {
    // Storage may be forbidden; the system's theme it is.
  }
  var dark = chosen === 'dark' || (chosen !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches)
  document.documentElement.dataset.theme = dark ? 'dark' : 'light'
})()
