"""What stage scripts share: their options, how they end, and the loading of what they measure. The only room that sees all the others."""
