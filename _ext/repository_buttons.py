"""Sphinx hook: buttons for the repository, Binder, Colab and Kaggle, if ``_config.yml`` names the repository."""

from __future__ import annotations

from sphinx.application import Sphinx
from sphinx.config import Config


def offer(app: Sphinx, config: Config) -> None:
    """Switch on the theme's buttons if the repository has an address."""
    options = config.html_theme_options
    address = options.get("repository_url")
    if address:
        options["use_repository_button"] = True
        options["launch_buttons"] = {"notebook_interface": "jupyterlab", "binderhub_url": "https://mybinder.org"}
        if "//github.com/" in address:  # Colab and Kaggle open notebooks from GitHub only
            options["launch_buttons"]["colab_url"] = "https://colab.research.google.com"


def offer_kaggle(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Add a button for Kaggle, which the theme does not support, below the one for Colab."""
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button["text"] == "Colab":
                source = button["url"].replace("https://colab.research.google.com/github", "https://github.com")
                url = f"https://kaggle.com/kernels/welcome?src={source}"
                kaggle = {"text": "Kaggle", "tooltip": "Launch on Kaggle", "icon": "fab fa-kaggle", "url": url}
                group["buttons"].append({**button, **kaggle})
                break


def setup(app: Sphinx) -> dict:
    """Connect the hooks; the theme adds its own buttons at priority 501."""
    app.connect("config-inited", offer)
    app.connect("html-page-context", offer_kaggle, priority=510)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
