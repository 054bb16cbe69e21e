"""The assignment *Prompts*: what frames and shipped models kept, as its instructor notebook printed it."""

from measured import printed
from measured.teaching import recorded

PAGE = "prompts"
NOT_MEASURED = {
    "about 3 hours": "an estimate", "the frame 30 minutes": "an estimate", "2 GB": "a bound",
    "75 points": "marks", "90 %": "a tolerance", "10 and 15 %": "tolerances", "near 5 %": "an example",
    "from 5 % to 40 %": "made up for a question", "0.3 %": "241,920 of 87.8 million, rounded"}


def numbers() -> dict[str, float]:
    """Accuracies in percent of the frame that was trained on fixed attacks, and of the finetuned models."""
    blind = r"^trained on fixed attacks +[\d.]+ +([\d.]+) +([\d.]+)$"
    return {"blind, transferred": printed(PAGE, blind), "blind, white box": printed(PAGE, blind, 2),
            "finetuned with Adv": printed(PAGE, r"^shipped, adv_finetune +[\d,]+ +([\d.]+)"),
            "finetuned with TeCoA": printed(PAGE, r"^shipped, tecoa_finetune +[\d,]+ +([\d.]+)"),
            "ahead of a blind attack": recorded(PAGE)["loss ahead of a transferred attack"]}
