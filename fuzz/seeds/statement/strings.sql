SELECT E'a'
  -- goes on
  'b\' ; c', U&'d\0061t', b'01', x'ff', 1.5e-3, 0x1F