// Runs before the first paint: sets the chosen theme, or the system's.
;(function () {
  var chosen = null
  try {
    chosen = localStorage.getItem('smartlink.theme')
  } catch {
    // Without storage the system's theme is used.
  }
  var dark = chosen === 'dark' || (chosen !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches)
  document.documentElement.dataset.theme = dark ? 'dark' : 'light'
})()
