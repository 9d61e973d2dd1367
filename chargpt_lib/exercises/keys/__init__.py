"""How each lesson's exercises are judged, by hand: cases, mistakes, symptoms."""
