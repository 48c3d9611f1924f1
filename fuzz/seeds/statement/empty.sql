-- nothing
 ;; /* to run */