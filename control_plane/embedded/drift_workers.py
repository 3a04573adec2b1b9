"""Profiles of Parquet files made by Dask workers: cells are cut column by column, rows are folded part by part.

What workers make adds up to what one process makes: the cells, every count, sketch and extreme to the bit. Only mean
and squared deviations of a number depend on how its rows were divided, in their last digits, and no verdict is made of
them. Workers read the files themselves, so they have to see them under the same path.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path

from control_plane.domain.drift import fold, profiles
from control_plane.domain.drift.profiles import Profile
from control_plane.domain.model_config import FeatureType
from control_plane.embedded import drift_files
from control_plane.embedded.drift_files import File
from control_plane.errors import InvalidInput
from training.common.workers import Workers

_PIECES = 4  # of work per worker, so that none waits long for the last one
_ROWS = 1_000_000  # of a part at most, where row groups allow


def reference(workers: Workers, file: File, types: Mapping[str, FeatureType], *, cells: fold.Cells) -> Profile:
    """As `drift_files.reference`."""
    if drift_files.sampled(file):
        return window(workers, file, _by_column(workers, file, types, cells, whole=False))
    return _by_column(workers, file, types, cells, whole=True)


def window(workers: Workers, file: File, grid: Profile) -> Profile:
    """As `drift_files.window`, but for the last digits of mean and squared deviations."""
    wanted = _PIECES * len(workers.addresses())
    parts = divided(file, wanted)
    names = [list(some) for some in _chunks(list(grid.features), -(-wanted // len(parts)))]
    tasks = [(path, groups, some) for some in names for path, groups in parts]
    made = workers.each(_folded, *zip(*tasks, strict=True), shared=[grid])
    features: dict[str, profiles.Feature] = {}
    for at, some in enumerate(names):
        blank = profiles.empty_like(_only(grid, some))
        features |= reduce(profiles.merge, made[at * len(parts) : (at + 1) * len(parts)], blank).features
    return Profile(file.rows, {name: features[name] for name in grid.features})


def divided(file: File, wanted: int) -> list[tuple[Path, list[int]]]:
    """Consecutive row groups of one file each, about `wanted` parts or more; a row group is never divided."""
    if not file.parts:
        raise InvalidInput("Workers read Parquet files or folders of them: turn the other file into one first.")
    most = max(1, min(_ROWS, file.rows // wanted))
    found: list[tuple[Path, list[int]]] = []
    for part in file.parts:
        groups, rows = list[int](), 0
        for group in part.groups:
            groups.append(group)
            rows += int(part.footer.row_group(group).num_rows)
            if rows >= most:
                found.append((part.path, groups))
                groups, rows = [], 0
        if groups or not part.groups:
            found.append((part.path, groups))
    return found


def _by_column(
    workers: Workers, file: File, types: Mapping[str, FeatureType], cells: fold.Cells, *, whole: bool
) -> Profile:
    names = _chunks(list(types), _PIECES * len(workers.addresses()))
    kinds = [{name: types[name] for name in some} for some in names]
    divided(file, 1)  # refuses what workers cannot read
    place = _path(file)
    made = workers.each(_cut, [place] * len(kinds), kinds, [cells] * len(kinds), [whole] * len(kinds))
    features = {name: feature for profile in made for name, feature in profile.features.items()}
    return Profile(file.rows, {name: features[name] for name in types})


def _path(file: File) -> Path:
    first = file.parts[0].path
    return first if len(file.parts) == 1 else first.parent


def _cut(path: Path, types: Mapping[str, FeatureType], cells: fold.Cells, whole: bool) -> Profile:
    """On a worker: the cells of these columns, and if `whole` all rows counted on them."""
    with drift_files.opened(path) as file:
        if whole:
            return drift_files.reference(file, types, cells=cells, threads=1)
        return drift_files.grid(file, types, cells=cells)


def _folded(path: Path, groups: Sequence[int], names: Sequence[str], grid: Profile) -> Profile:
    """On a worker: these row groups and columns. `thin`, since the member filters are the same everywhere."""
    with drift_files.opened(path, groups) as part:
        return profiles.thin(drift_files.window(part, _only(grid, names), threads=1))


def _only(grid: Profile, names: Sequence[str]) -> Profile:
    return replace(grid, features={name: grid.features[name] for name in names})


def _chunks(names: Sequence[str], wanted: int) -> list[Sequence[str]]:
    """About `wanted` pieces of about one size, none of them empty."""
    size = max(1, -(-len(names) // max(1, wanted)))
    return [names[at : at + size] for at in range(0, len(names), size)]
