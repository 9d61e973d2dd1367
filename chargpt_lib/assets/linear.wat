;; y[t, o] = sum over i of w[o, i] x[t, i], by instructions for four numbers at a time. x is (T, I), w (O, I), y (T, O), all
;; float32, row by row; x, w and y are addresses in bytes. I is a multiple of four. T, O and I are at least one.
;;
;; Four positions go together, so that each weight is fetched once for four products. What is left of T goes alone.
(module
  (import "env" "memory" (memory 1))
  (func $sum (param $v v128) (result f32)
    (f32.add
      (f32.add (f32x4.extract_lane 0 (local.get $v)) (f32x4.extract_lane 1 (local.get $v)))
      (f32.add (f32x4.extract_lane 2 (local.get $v)) (f32x4.extract_lane 3 (local.get $v)))))
  (func (export "linear")
    (param $x i32) (param $T i32) (param $w i32) (param $O i32) (param $I i32) (param $y i32)
    (local $t i32) (local $o i32) (local $i i32) (local $row i32) (local $at i32) (local $end i32)
    (local $weight v128) (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local.set $row (i32.mul (local.get $I) (i32.const 4)))
    (loop $over_t
      (local.set $o (i32.const 0))
      (loop $over_o
        (local.set $a (v128.const f32x4 0 0 0 0))
        (local.set $b (v128.const f32x4 0 0 0 0))
        (local.set $c (v128.const f32x4 0 0 0 0))
        (local.set $d (v128.const f32x4 0 0 0 0))
        (local.set $i (i32.add (local.get $w) (i32.mul (local.get $o) (local.get $row))))
        (local.set $end (i32.add (local.get $i) (local.get $row)))
        (local.set $at (i32.add (local.get $x) (i32.mul (local.get $t) (local.get $row))))
        (if (i32.ge_u (i32.sub (local.get $T) (local.get $t)) (i32.const 4))
          (then
            (loop $over_i
              (local.set $weight (v128.load (local.get $i)))
              (local.set $a (f32x4.add (local.get $a) (f32x4.mul (local.get $weight) (v128.load (local.get $at)))))
              (local.set $b (f32x4.add (local.get $b) (f32x4.mul (local.get $weight)
                (v128.load (i32.add (local.get $at) (local.get $row))))))
              (local.set $c (f32x4.add (local.get $c) (f32x4.mul (local.get $weight)
                (v128.load (i32.add (local.get $at) (i32.mul (local.get $row) (i32.const 2)))))))
              (local.set $d (f32x4.add (local.get $d) (f32x4.mul (local.get $weight)
                (v128.load (i32.add (local.get $at) (i32.mul (local.get $row) (i32.const 3)))))))
              (local.set $at (i32.add (local.get $at) (i32.const 16)))
              (local.set $i (i32.add (local.get $i) (i32.const 16)))
              (br_if $over_i (i32.lt_u (local.get $i) (local.get $end))))
            (local.set $at (i32.add (local.get $y) (i32.mul (i32.const 4)
              (i32.add (i32.mul (local.get $t) (local.get $O)) (local.get $o)))))
            (f32.store (local.get $at) (call $sum (local.get $a)))
            (local.set $at (i32.add (local.get $at) (i32.mul (local.get $O) (i32.const 4))))
            (f32.store (local.get $at) (call $sum (local.get $b)))
            (local.set $at (i32.add (local.get $at) (i32.mul (local.get $O) (i32.const 4))))
            (f32.store (local.get $at) (call $sum (local.get $c)))
            (local.set $at (i32.add (local.get $at) (i32.mul (local.get $O) (i32.const 4))))
            (f32.store (local.get $at) (call $sum (local.get $d))))
          (else
            (loop $alone
              (local.set $a (f32x4.add (local.get $a)
                (f32x4.mul (v128.load (local.get $i)) (v128.load (local.get $at)))))
              (local.set $at (i32.add (local.get $at) (i32.const 16)))
              (local.set $i (i32.add (local.get $i) (i32.const 16)))
              (br_if $alone (i32.lt_u (local.get $i) (local.get $end))))
            (f32.store
              (i32.add (local.get $y) (i32.mul (i32.const 4)
                (i32.add (i32.mul (local.get $t) (local.get $O)) (local.get $o))))
              (call $sum (local.get $a)))))
        (local.set $o (i32.add (local.get $o) (i32.const 1)))
        (br_if $over_o (i32.lt_u (local.get $o) (local.get $O))))
      (local.set $t (i32.add (local.get $t)
        (select (i32.const 4) (i32.const 1)
          (i32.ge_u (i32.sub (local.get $T) (local.get $t)) (i32.const 4)))))
      (br_if $over_t (i32.lt_u (local.get $t) (local.get $T)))))
)
