"""Second-order Taylor mode: the jets, and the rule of each torch operation."""
