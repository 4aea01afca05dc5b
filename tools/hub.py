"""What the doctor asks in the environment that a profile runs in: the model hub, where weights come from there."""

from huggingface_hub import constants

from lgffem_core.config.study import Study
from lgffem_core.model.packaged import weights_source
from lgffem_core.run.checklist import server_answers, wanted_networks


def hub_state(study: Study) -> dict | None:
    """Networks whose weights come from the model hub, whether it answers, and where they go; None for none."""
    networks = [name for name, settings in wanted_networks(study).values() if weights_source(name, settings) == "hub"]
    if not networks:
        return None
    offline = bool(constants.HF_HUB_OFFLINE)
    answers = not offline and server_answers(constants.ENDPOINT)
    found = {"networks": networks, "server": constants.ENDPOINT, "offline": offline, "answers": answers}
    return {**found, "cache": constants.HF_HUB_CACHE}
