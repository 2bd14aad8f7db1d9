"""What pages are judged by: axe-core, what sticks out of the window, and the sizes of windows."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import ViewportSize

AXE = Path(__file__).parents[2] / "frontend/node_modules/axe-core/axe.min.js"

DESK: ViewportSize = {"width": 1280, "height": 800}
TABLET: ViewportSize = {"width": 768, "height": 1024}
PHONE: ViewportSize = {"width": 360, "height": 740}
#: What 200 % of a 640 pixel wide window leaves.
NARROW: ViewportSize = {"width": 320, "height": 600}

#: Colours that are still on their way are nobody's colours.
AXE_RUN = """async () => {
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))
  await Promise.all(document.getAnimations().map(({ finished }) => finished.catch(() => undefined)))
  return (await axe.run(document, { resultTypes: ['violations'] })).violations
  .filter(({ impact }) => impact === 'serious' || impact === 'critical')
  .flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => `${id}: ${target}: ${failureSummary}`))
}"""

#: What sticks out of the window, or makes a part of the page scroll sideways.
STICKS_OUT = """() => {
  const named = (one) => `${one.tagName}.${one.className} "${one.textContent.slice(0, 40)}"`
  const shown = (one) => one.getClientRects().length > 0 && !one.closest('.visually-hidden, .skip-link, [aria-hidden=true]')
  const out = [...document.querySelectorAll('a, button, input, select, textarea, h1, h2, p, li, td, th, time, .bubble')]
    .filter((one) => shown(one) && !one.closest('[data-scrolls-sideways]'))
    .filter((one) => { const { left, right } = one.getBoundingClientRect(); return left < -1 || right > innerWidth + 1 })
  const sideways = [...document.querySelectorAll('*')].filter((one) => shown(one) && one.scrollWidth > one.clientWidth + 1 &&
    ['auto', 'scroll'].includes(getComputedStyle(one).overflowX) && !one.closest('[data-scrolls-sideways]'))
  return [...out, ...sideways].map(named)
}"""
