"""Draws a report's charts: for each workload that was measured with several numbers of callers, throughput and p99.

    charts.py FOLDER        # reads FOLDER/report.json, writes FOLDER/WORKLOAD.svg
"""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("svg")
# The same report gives the same file.
matplotlib.rcParams.update({"svg.hashsalt": "tidegate", "svg.fonttype": "none", "font.size": 9})
import matplotlib.pyplot as plt  # noqa: E402: after the backend was chosen

SYSTEMS = {"direct": ("direct PostgreSQL", "#666666"), "pgbouncer": ("PgBouncer", "#c4622d"), "broker": ("Tidegate", "#1f6fb2")}
TITLES = {
    "point": "read of one row",
    "ten-rows": "read of 10 rows",
    "thousand-rows": "read of 1,000 rows",
    "update": "single UPDATE",
    "write-then-read": "UPDATE, then read of one's own write",
    "mixed": "90 % reads, 10 % UPDATEs",
}


def draw_line(axis, cells, figure, scale):
    for system, (label, colour) in SYSTEMS.items():
        points = sorted(
            (cell["callers"], *(cell[figure][end] / scale for end in ("median", "min", "max")))
            for cell in cells
            if cell["system"] == system and cell[figure]
        )
        if points:
            callers, medians, lows, highs = zip(*points)
            axis.plot(callers, medians, marker="o", markersize=3, label=label, color=colour)
            axis.fill_between(callers, lows, highs, color=colour, alpha=0.15, linewidth=0)


def draw(folder, workload, cells, machine):
    figure, (rate, latency) = plt.subplots(1, 2, figsize=(9, 3.6))
    draw_line(rate, cells, "per_second", 1)
    draw_line(latency, cells, "p99_us", 1000)
    for axis, title in ((rate, "calls a second"), (latency, "p99 in ms")):
        callers = sorted({cell["callers"] for cell in cells})
        axis.set_xscale("log", base=2)
        axis.set_xticks(callers, [f"{number:,}" for number in callers])
        axis.minorticks_off()
        axis.set_xlabel("callers")
        axis.set_title(title)
        axis.grid(alpha=0.25)
    rate.set_ylim(bottom=0)
    latency.set_yscale("log")
    rate.legend(frameon=False)
    figure.suptitle(f"{TITLES[workload]}: medians of rounds, with their spread; {machine['cores']} cores, {machine['processor']}", fontsize=9)
    figure.tight_layout()
    figure.savefig(folder / f"{workload}.svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)


folder = pathlib.Path(sys.argv[1])
report = json.loads((folder / "report.json").read_text())
for workload in TITLES:
    cells = [cell for cell in report["cells"] if cell["workload"] == workload]
    if len({cell["callers"] for cell in cells}) > 1:
        draw(folder, workload, cells, report["machine"])
