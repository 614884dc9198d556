"""What the report calls its tables and figures, and which of a reader's questions each one answers."""

#: A reader's questions, in their order; the numbers keep it where a report sorts them.
PARTS = {
    "happened": "1. What happened?",
    "gradient": "2. Is the gradient right?",
    "rules": "3. Each rule against BP",
    "attacks": "4. Other attacks",
    "papers": "5. The papers' tables and figures",
    "more": "6. More results, and what they cost",
}

_FIGURES = {
    "audit": ("happened", "Audit: the claim and the worst case"),
    "gradient_matrix": ("gradient", "Whose gradient? Accuracy by the gradient that the attacker uses"),
    "why": ("gradient", "Why an attack through a wrong gradient fails"),
    "figure1": ("gradient", "Angle between a rule's update and the gradient"),
    "figure2": ("rules", "Accuracy against epsilon"),
    "figure3": ("rules", "Retrieval against epsilon"),
    "figure4": ("rules", "Accuracy against epsilon, AlexNet"),
    "figure5": ("rules", "Accuracy against epsilon, VGG-16"),
    "figure6": ("rules", "Retrieval against epsilon, AlexNet"),
    "finetune_length": ("rules", "What more fine-tuning changes"),
    "precision_recall": ("rules", "How well codes retrieve without an attack"),
    "norms": ("attacks", "Smallest perturbation that fools a network"),
    "transfer_matrix": ("attacks", "Images that were made on another network"),
    "gallery": ("attacks", "Adversarial images"),
    "retrieved": ("attacks", "What queries find, with and without an attack"),
    "pepita_figure2a": ("papers", "PEPITA, Figure 2A: natural against adversarial accuracy"),
    "pepita_figure2b": ("papers", "PEPITA, Figure 2B: accuracy by epoch"),
    "pepita_instability": ("more", "How PEPITA's feedback drives itself"),
    "sal_alignment": ("more", "How SAL assembles itself"),
    "sal_figure2": ("papers", "SAL, Figure 2: width of the descending stream"),
    "sal_figure3": ("papers", "SAL, Figure 3: the matrix learning rate"),
    "sal_figure4": ("papers", "SAL, Figure 4: which matrices learn"),
    "sal_figure5": ("papers", "SAL, Figure 5: learning rates"),
    "sal_modulation": ("more", "Whether SAL's descending stream helps at once"),
    "target_propagation_figure2": ("papers", "Target propagation, Figure 2: updates without effect"),
    "target_propagation_figure4": ("papers", "Target propagation, Figure 4: angles of updates"),
}

_TABLES = {
    "audit": ("happened", "Audit: verdicts with their numbers"),
    "overview": ("happened", "All attacks on one page"),
    "gradient_matrix": ("gradient", "Whose gradient? Accuracy by the gradient that the attacker uses"),
    "zero_gradients": ("gradient", "Images whose gradient is zero"),
    "audit_guards": ("rules", "Why verdicts are unresolved, and every attack's number"),
    "figure2": ("rules", "Accuracy at each epsilon"),
    "table1": ("rules", "Accuracy without an attack"),
    "table2": ("rules", "Retrieval without an attack"),
    "retrieval_attacks": ("rules", "Retrieval at each epsilon"),
    "table3": ("attacks", "Accuracy under Boundary Attack"),
    "table4": ("attacks", "Accuracy under HopSkipJump"),
    "transfer_matrix": ("attacks", "Images that were made on another network"),
    "compare": ("papers", "Published numbers beside ours"),
    "published": ("papers", "Published numbers and their uncertainty"),
    "pepita_table1": ("papers", "PEPITA, Table 1: natural images"),
    "pepita_table2": ("papers", "PEPITA, Table 2: chosen by adversarial accuracy"),
    "pepita_table3": ("papers", "PEPITA, Table 3: trained with PGD images"),
    "pepita_table4": ("papers", "PEPITA, Table 4: trained with FGSM images"),
    "sal_table1": ("papers", "SAL, Table 1: accuracy"),
    "sal_table2": ("papers", "SAL, Table 2: which pathways learn"),
    "target_propagation_figure2": ("papers", "Target propagation, Figure 2: its numbers"),
    "target_propagation_figure4": ("papers", "Target propagation, Figure 4: its numbers"),
    "target_propagation_table1": ("papers", "Target propagation, Table 1: errors"),
    "target_propagation_table2": ("papers", "Target propagation, Table 2: training losses"),
    "population_costs": ("more", "What each rule's training costs"),
    "training_measures": ("more", "What was measured during training"),
}

_KINDS = {"figure": _FIGURES, "table": _TABLES}


def entry_title(kind: str, name: str) -> str:
    """Returns what the report calls a table or figure; the words of its id if it comes from another package."""
    _, title = _entry(kind, name)
    return f"{title} ({kind})"


def entry_part(kind: str, name: str) -> str:
    """Returns the reader's question that a table or figure answers."""
    part, _ = _entry(kind, name)
    return PARTS[part]


def _entry(kind: str, name: str) -> tuple[str, str]:
    words = name.replace("_", " ")
    return _KINDS[kind].get(name, ("more", words[:1].upper() + words[1:]))
