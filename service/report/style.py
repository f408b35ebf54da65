"""How a report looks, on a screen in light and dark, and on paper."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --ground: #fff;
  --released: #0b62a4; --withheld: #b3380b; --empty: #afb8c1; --late: #8250df; --good: #1a7f37; --bad: #cf222e; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #a2abb5; --line: #30363d; --ground: #14171a;
  --released: #6db6f2; --withheld: #f2935c; --empty: #57606a; --late: #b392f0; --good: #4ac26b; --bad: #ff7b72; } }
body { font: 15px/1.5 system-ui, sans-serif; background: var(--ground); color: var(--ink); margin: 0; }
main { max-width: 920px; margin: 0 auto; padding: 1.5rem 1rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.15rem; margin: 1.6rem 0 .4rem; border-top: 1px solid var(--line); padding-top: .8rem; }
h3 { font-size: .95rem; margin: 1rem 0 .3rem; }
p { margin: .4rem 0; } p, li, code { overflow-wrap: anywhere; }
.verdict { font-size: 1.2rem; font-weight: 600; border-left: 6px solid var(--soft); padding-left: .7rem; margin: 1rem 0; }
.verdict.good { border-color: var(--good); color: var(--good); } .verdict.bad { border-color: var(--bad); color: var(--bad); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0;
  border-top: 1px solid var(--line); overflow-wrap: anywhere; }
.wide th { overflow-wrap: normal; } .wide td:not(:first-child) { white-space: nowrap; overflow-wrap: normal; }
.counts td, .bars td:last-child, .wide td:not(:first-child), .wide th:not(:first-child) { text-align: right; }
td:last-child, .wide th:last-child { padding-right: 0; }
th { font-weight: 500; color: var(--soft); }
.bars th, .bars td { border: 0; padding: .15rem 0; white-space: nowrap; vertical-align: middle; }
.bars .bar { width: 100%; padding: 0 .4rem 0 .8rem; } .bars i { display: block; height: 1rem; border-radius: 2px; }
svg { width: 100%; height: auto; display: block; overflow: visible; } text { fill: currentColor; font-size: 13px; }
.grid { stroke: var(--line); } .released { fill: var(--released); } .withheld { fill: var(--withheld); }
.empty { fill: var(--empty); } .late { fill: var(--late); } .none { color: var(--soft); }
.legend { font-size: .85rem; } .legend span { margin-right: 1.2rem; }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin-right: .4rem; }
i { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
i.released { background: var(--released); } i.withheld { background: var(--withheld); }
i.empty { background: var(--empty); } i.late { background: var(--late); }
@media (max-width: 600px) { text { font-size: 30px; } .wide-only { display: none; } svg { margin: .6rem 0 1rem; }
  ul { padding-left: 1.2rem; } .wide { font-size: .85rem; } .wide :is(th, td):not(:last-child) { padding-right: .5rem; } }
.signature .lines { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1.5rem; margin: 2.5rem 0 1rem; }
.signature .lines span { display: block; border-bottom: 1px solid var(--ink); height: 1.5rem; }
small { color: var(--soft); }
@media print { body { font-size: 11px; } section { break-inside: avoid-page; }
  details:not([open]) > *:not(summary) { display: none; } h2 { break-after: avoid; } }
"""
