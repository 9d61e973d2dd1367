"""How the exercises of lesson 14 are judged: cases, mistakes, symptoms."""
