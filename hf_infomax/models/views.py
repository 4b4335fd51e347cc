"""Views: an image -> the things of it whose mutual information is maximised, by name."""

from torch import Tensor, nn

from .colors import COLOR_SPACES
from .configuration_infomax import InfoMaxConfig
from .errors import UsageError, choose


class ColorViews(nn.Module):
    """RGB in [0, 1] -> the configuration's views by name, each a run of a colour space's channels, scaled for an encoder."""

    def __init__(self, config: InfoMaxConfig):
        super().__init__()
        self.space = choose("color_space", config.color_space, COLOR_SPACES)
        self.channels = {}
        if not config.views or len(set(config.views)) < len(config.views):
            raise UsageError(f"views={list(config.views)} must name one view or more, each once.")
        for name in config.views:
            self.channels[name] = self.space.split(name)
            if self.channels[name] is None:
                spelled = "".join(self.space.channels)
                raise UsageError(
                    f"View '{name}' is no run of the channels {spelled} of color_space '{config.color_space}'."
                )
        if config.color_space == "rgb":
            self.mean, self.std = list(config.image_mean), list(config.image_std)
        else:
            low, high = self.space.low, self.space.high
            self.mean = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
            self.std = [(b - a) / 2 for a, b in zip(low, high, strict=True)]

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> view name -> (B, C, H, W)."""
        if pixel_values.dim() == 5:
            raise UsageError(
                f"pixel_values have shape {tuple(pixel_values.shape)}, several crops of each image, and this method sees one: "
                "choose a recipe of views with one crop, or set views.crops=0."
            )
        if pixel_values.dim() != 4 or pixel_values.shape[1] != 3:
            raise UsageError(
                f"pixel_values must be (batch, 3, height, width) RGB in [0, 1], but have shape {tuple(pixel_values.shape)}: "
                "convert the images to RGB first."
            )
        planes = self.space.convert(pixel_values)
        mean = planes.new_tensor(self.mean)[:, None, None]
        std = planes.new_tensor(self.std)[:, None, None]
        planes = (planes - mean) / std
        return {name: planes[:, list(index)] for name, index in self.channels.items()}
