"""One file per stage, one public function each."""
