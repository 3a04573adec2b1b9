"""Run by the interpreter that has gbstats: its own verdict on looks at yes/no tests, to hold the formula here against.

Reads from standard input a list of [units per arm, events of treatment, events of control]; writes which difference it
compares unless it is told, and for each, for the relative difference and the absolute one, whether 0 is outside of the
interval and the interval's ends.
"""

import json
import sys

from gbstats.frequentist.tests import SequentialConfig, SequentialTwoSidedTTest
from gbstats.models.settings import AnalysisSettingsForStatsEngine
from gbstats.models.statistics import ProportionStatistic

answers = []
for units, treatment, control in json.load(sys.stdin):
    arms = [ProportionStatistic(n=units, sum=events) for events in (control, treatment)]
    found = []
    for kind in ("relative", "absolute"):
        result = SequentialTwoSidedTTest(*arms, SequentialConfig(difference_type=kind)).compute_result()
        found.append([bool(result.ci[0] > 0 or result.ci[1] < 0), *map(float, result.ci)])
    answers.append(found)
default = {SequentialConfig().difference_type, AnalysisSettingsForStatsEngine([], [], []).difference_type}
json.dump({"default": " and ".join(sorted(default)), "answers": answers}, sys.stdout)
