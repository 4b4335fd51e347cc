"""What can be slid of two views, by name: each strength's place in a recipe, its values, and how its axis is called."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hf_infomax import UsageError
from hf_infomax.data.recipes import strengths_of
from hf_infomax.models.colors import COLOR_SPACES
from hf_infomax.models.errors import choose
from recipe import Recipe, load_recipe


@dataclass(frozen=True)
class Slide:
    """One strength of the views."""

    title: str  # of the figure
    label: str  # of what is slid, with its unit
    symbol: str  # as in "c = 0.2"; empty where the value speaks for itself
    values: tuple[str, ...]  # where the user gives none; from low to high where they are numbers
    overrides: Callable[[str], list[str]]  # value -> overrides of a recipe
    stronger: str = (
        ""  # the end at which the views share less: "low" or "high"; empty where there is no order of that kind
    )
    base: str = "augmentations"  # which of the base recipes, see `BASES`

    @property
    def numeric(self) -> bool:
        return self.base == "augmentations"

    def named(self, value: str) -> str:
        return f"{self.symbol} = {value}" if self.symbol else value


_INFOMIN = ("views.recipe=infomin", "views.leave_out=[jigsaw_values]")


def _colour_split(space: str) -> list[str]:
    one, other = choose("colour space", space, COLOR_SPACES).splits[0]
    return [f"model.color_space={space}", f"model.views=[{one},{other}]"]


STRENGTHS = {
    "crop": Slide(
        "Random crops",
        "least area of a crop, c, as a share of the image",
        "c",
        ("0.05", "0.1", "0.2", "0.4", "0.6", "0.8", "1"),
        lambda value: [f"views.crop={value}"],
        stronger="low",
    ),
    "jitter": Slide(
        "Colour jitter",
        "strength of the colour jitter, x",
        "x",
        ("0.125", "0.25", "0.5", "1", "1.5", "2", "2.5"),
        # InfoMin's jitter, whose x is the paper's, and neither RandAugment nor pieces.
        lambda value: [*_INFOMIN, "views.layers=0", f"views.jitter={value}"],
        stronger="high",
    ),
    "blur": Slide(
        "Blur",
        "greatest sigma of the blur, in pixels",
        "sigma",
        ("0.15", "0.25", "0.5", "1", "2", "4"),
        lambda value: [
            "views.blur=0.5",
            f"views.blur_sigma={value}",
        ],  # half of the images, also where a recipe blurs none
        stronger="high",
    ),
    "magnitude": Slide(
        "RandAugment",
        "magnitude of RandAugment, m, of 10",
        "m",
        ("0", "2", "4", "6", "8", "10"),
        lambda value: [*_INFOMIN, f"views.magnitude={value}"],
        stronger="high",
    ),
    "distance": Slide(
        "Patches",
        "distance of two patches, d, in pixels along each axis",
        "d",
        ("0", "8", "16", "32", "64", "96"),
        lambda value: ["views.recipe=patches", "data.shorter_side=128", f"views.distance={value}"],
        stronger="high",
    ),
    "frequency": Slide(
        "Low against high frequencies",
        "sigma of the blur that divides the frequencies, in pixels",
        "sigma",
        ("0.3", "0.5", "0.7", "1", "1.5", "2", "3"),
        lambda value: ["views.recipe=frequency", f"views.sigma={value}"],
    ),
    "colour": Slide(
        "Colour spaces",
        "colour space, its first channel against the others",
        "",
        ("lab", "ydbdr", "ycbcr", "yuv", "rgb", "xyz", "hsv", "hed"),
        _colour_split,
        base="channels",
    ),
}

#: Dataset -> the recipe of one encoder for two augmentations, and that of two encoders for channels; any other one is as None.
BASES = {
    None: {"augmentations": "moco_v2_cifar10_cpu", "channels": "cmc_cifar10_cpu"},
    "hf_infomax/colour_digits": {"augmentations": "moco_v2_colour_digits_cpu", "channels": "cmc_colour_digits_cpu"},
}


def default_recipe(slide: Slide, overrides: Sequence[str]) -> str:
    """The recipe that a sweep of the overrides' dataset starts from."""
    dataset = next((text.partition("=")[2] for text in overrides if text.startswith("data.dataset=")), None)
    return BASES.get(dataset, BASES[None])[slide.base]


def values_of(strength: str, given: Sequence[str]) -> list[str]:
    """The values to measure, each once, numbers in their order.

    Raises:
        UsageError: no such strength, or a value that it cannot have.
    """
    slide = choose("strength", strength, STRENGTHS)
    if not slide.numeric:
        for value in given:
            choose("colour space", value, COLOR_SPACES)
        return list(dict.fromkeys(given or slide.values))
    try:
        numbers = sorted({float(value) for value in given or slide.values})
    except ValueError as error:
        raise UsageError(
            f"values={','.join(given)} are not all numbers: write those of {strength}, such as values={','.join(slide.values)}."
        ) from error
    return [f"{number:g}" for number in numbers]


def slid_recipe(strength: str, value: str, name: str, overrides: Sequence[str]) -> Recipe:
    """A training recipe at a value of a strength; the overrides have the last word.

    Where a strength belongs to a view recipe of its own, settings of the base's views that this one does not have are left out.

    Raises:
        UsageError: as `load_recipe`.
    """
    own = STRENGTHS[strength].overrides(value)
    recipe = load_recipe(name, [*own, *overrides])
    if any(text.startswith("views.recipe=") for text in own):
        given = {text.partition("=")[0].removeprefix("views.") for text in [*own, *overrides]}
        known = strengths_of(recipe.views["recipe"])
        recipe.views = {key: setting for key, setting in recipe.views.items() if key in given or key in known}
    return recipe
