"""How well plain classifiers on a network's features tell the class: the rival that every head has to beat."""
