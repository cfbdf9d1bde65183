(* The canonical encryption context (docs/FORMAT.md A3) is injective, and reading it inverts writing it.

   The first half is a model of src/context.rs. Each definition has the name of the Rust item that it models and follows
   it line by line. The second half proves theorems about the model. `theorems` in Run.v lists them.

   How Rust's types are modelled:

   - A byte, a character and a length are numbers of type N. [byte] and [scalar] say which numbers are bytes and Unicode
     scalar values.
   - A `str` is the list of its characters, as `str::chars` returns them. `str::as_bytes` is [as_bytes], and `str::len`
     is the length of that. `Ord for str` compares those bytes.
   - `Result` is [result]. `?` is [let?].
   - `sort_unstable_by_key` may be any function that returns its argument's elements in ascending order of the keys. *)

From Coq Require Import List NArith ZArith Lia Bool Sorted Permutation Morphisms.
Import ListNotations.
Open Scope N_scope.

Ltac Zify.zify_post_hook ::= Z.to_euclidean_division_equations.

(* * The model *)

Inductive ContextRule := EmptyKey | DuplicateKey | TooManyCharacters.

Inductive result (T : Type) := Ok (value : T) | Err (rule : ContextRule).
Arguments Ok {T}.
Arguments Err {T}.

Notation "'let?' x := e 'in' rest" := (match e with Ok x => rest | Err rule => Err rule end)
  (at level 200, x pattern, right associativity).

Definition len {T : Type} (list : list T) : N := N.of_nat (length list).

(* ** Text *)

Definition byte (b : N) : Prop := b < 256.

(* A Unicode scalar value: Rust's `char`. *)
Definition scalar (c : N) : Prop := c < 0xD800 \/ 0xE000 <= c < 0x110000.

Notation str := (list N).

(* The UTF-8 encoding of a character: RFC 3629, section 3. *)
Definition encode (c : N) : list N :=
  if c <? 0x80 then [c]
  else if c <? 0x800 then [0xC0 + c / 64; 0x80 + c mod 64]
  else if c <? 0x10000 then [0xE0 + c / 4096; 0x80 + c / 64 mod 64; 0x80 + c mod 64]
  else [0xF0 + c / 262144; 0x80 + c / 4096 mod 64; 0x80 + c / 64 mod 64; 0x80 + c mod 64].

Definition as_bytes (text : str) : list N := flat_map encode text.

(* The order of bytes: a prefix stands before what it is a prefix of. *)
Fixpoint compare_bytes (a b : list N) : comparison :=
  match a, b with
  | [], [] => Eq
  | [], _ :: _ => Lt
  | _ :: _, [] => Gt
  | x :: a, y :: b => match x ?= y with Eq => compare_bytes a b | order => order end
  end.

Definition str_compare (a b : str) : comparison := compare_bytes (as_bytes a) (as_bytes b).
Definition str_lt (a b : str) : bool := match str_compare a b with Lt => true | _ => false end.
Definition str_le (a b : str) : bool := match str_compare a b with Gt => false | _ => true end.

(* ** src/context.rs *)

Definition MAX_CHARACTERS : N := 8192.
Definition LENGTHS : N := 4.
Definition MAX_CANONICAL : N := 2 + MAX_CHARACTERS * (LENGTHS + 4).

Notation Pair := (str * str)%type.

(* The bytes that `put_length` appends. `u16::try_from` fails from 2^16 on. *)
Definition put_length (length : N) : result (list N) :=
  if length <? 65536 then Ok [length / 256; length mod 256] else Err TooManyCharacters.

(* `room.checked_sub(text.chars().count())` *)
Definition take_room (room : N) (text : str) : result N :=
  if len text <=? room then Ok (room - len text) else Err TooManyCharacters.

(* The loop over the pairs at the start of `checked`. *)
Fixpoint check_pairs (room : N) (pairs : list Pair) : result unit :=
  match pairs with
  | [] => Ok tt
  | (key, value) :: rest =>
      match key with
      | [] => Err EmptyKey
      | _ =>
          let? room := take_room room key in
          let? room := take_room room value in
          check_pairs room rest
      end
  end.

(* `pairs.is_sorted_by(|(a, _), (b, _)| a < b)` *)
Fixpoint is_sorted (pairs : list Pair) : bool :=
  match pairs with
  | (a, _) :: (((b, _) :: _) as rest) => str_lt a b && is_sorted rest
  | _ => true
  end.

(* The loop over the pairs in `of`. *)
Fixpoint put_pairs (pairs : list Pair) : result (list N) :=
  match pairs with
  | [] => Ok []
  | (key, value) :: rest =>
      let? key_length := put_length (len (as_bytes key)) in
      let? value_length := put_length (len (as_bytes value)) in
      let? rest := put_pairs rest in
      Ok (key_length ++ as_bytes key ++ value_length ++ as_bytes value ++ rest)
  end.

Section Sort.

(* `sort_unstable_by_key`: any permutation in which no key stands after a greater one. *)
Variable sort : list Pair -> list Pair.
Definition key_le (a b : Pair) : Prop := str_le (fst a) (fst b) = true.
Hypothesis sort_permutes : forall pairs, Permutation pairs (sort pairs).
Hypothesis sort_sorts : forall pairs, Sorted key_le (sort pairs).

Definition checked (pairs : list Pair) : result (list Pair) :=
  let? _ := check_pairs MAX_CHARACTERS pairs in
  let pairs := sort pairs in
  if is_sorted pairs then Ok pairs else Err DuplicateKey.

Definition of (pairs : list Pair) : result (list N) :=
  let? pairs := checked pairs in
  match pairs with
  | [] => Ok []
  | _ =>
      let? count := put_length (len pairs) in
      let? rest := put_pairs pairs in
      Ok (count ++ rest)
  end.

(* `collect` stops above the limit. *)
Definition collect (pairs : list Pair) : result (list Pair) :=
  if len pairs <=? MAX_CHARACTERS then Ok pairs else Err TooManyCharacters.

Definition from_pairs (pairs : list Pair) : result (list N) :=
  let? pairs := collect pairs in
  of pairs.

(* ** Reading *)

(* The crate does not read canonical contexts, because a blob does not contain its context. This reader shows that the
   canonical form contains the whole context. *)

Definition continuation (b : N) : bool := (0x80 <=? b) && (b <? 0xC0).

(* The characters of UTF-8 text, or nothing if it is not well-formed. *)
Fixpoint decode (bytes : list N) : option str :=
  match bytes with
  | [] => Some []
  | b0 :: rest0 =>
      if b0 <? 0x80 then option_map (cons b0) (decode rest0)
      else
        match rest0 with
        | [] => None
        | b1 :: rest1 =>
            if (0xC2 <=? b0) && (b0 <? 0xE0) && continuation b1 then
              option_map (cons ((b0 - 0xC0) * 64 + (b1 - 0x80))) (decode rest1)
            else
              match rest1 with
              | [] => None
              | b2 :: rest2 =>
                  let c := (b0 - 0xE0) * 4096 + (b1 - 0x80) * 64 + (b2 - 0x80) in
                  if (0xE0 <=? b0) && (b0 <? 0xF0) && continuation b1 && continuation b2
                     && (0x800 <=? c) && ((c <? 0xD800) || (0xE000 <=? c))
                  then option_map (cons c) (decode rest2)
                  else
                    match rest2 with
                    | [] => None
                    | b3 :: rest3 =>
                        let c := (b0 - 0xF0) * 262144 + (b1 - 0x80) * 4096 + (b2 - 0x80) * 64 + (b3 - 0x80) in
                        if (0xF0 <=? b0) && (b0 <? 0xF8) && continuation b1 && continuation b2 && continuation b3
                           && (0x10000 <=? c) && (c <? 0x110000)
                        then option_map (cons c) (decode rest3)
                        else None
                    end
              end
        end
  end.

Definition read_length (bytes : list N) : option (N * list N) :=
  match bytes with
  | high :: low :: rest => Some (256 * high + low, rest)
  | _ => None
  end.

Definition read_text (bytes : list N) : option (str * list N) :=
  match read_length bytes with
  | None => None
  | Some (length, rest) =>
      if len rest <? length then None
      else
        match decode (firstn (N.to_nat length) rest) with
        | None => None
        | Some text => Some (text, skipn (N.to_nat length) rest)
        end
  end.

(* Reads this many pairs, and then nothing may follow. *)
Fixpoint read_pairs (count : nat) (bytes : list N) : option (list Pair) :=
  match count with
  | O => match bytes with [] => Some [] | _ => None end
  | S count =>
      match read_text bytes with
      | None => None
      | Some (key, rest) =>
          match read_text rest with
          | None => None
          | Some (value, rest) => option_map (cons (key, value)) (read_pairs count rest)
          end
      end
  end.

(* Reads a canonical context, and refuses all other bytes. *)
Definition read (bytes : list N) : option (list Pair) :=
  match bytes with
  | [] => Some []
  | _ =>
      match read_length bytes with
      | None => None
      | Some (count, rest) =>
          match read_pairs (N.to_nat count) rest with
          | None | Some [] => None
          | Some pairs =>
              match check_pairs MAX_CHARACTERS pairs with
              | Err _ => None
              | Ok _ => if is_sorted pairs then Some pairs else None
              end
          end
      end
  end.

(* * The rules of A3 *)

Definition text (s : str) : Prop := Forall scalar s.
Definition texts (pairs : list Pair) : Prop := Forall (fun pair => text (fst pair) /\ text (snd pair)) pairs.

Fixpoint characters (pairs : list Pair) : N :=
  match pairs with
  | [] => 0
  | (key, value) :: rest => len key + len value + characters rest
  end.

(* "Keys are not empty", "no key occurs twice", "at most 8192". *)
Definition A3 (pairs : list Pair) : Prop :=
  Forall (fun pair => fst pair <> []) pairs /\ NoDup (map fst pairs) /\ characters pairs <= 8192.

(* * Lemmas *)

(* ** Lists *)

Lemma len_nil : forall T, len (@nil T) = 0.
Proof. reflexivity. Qed.

Lemma len_cons : forall T (x : T) l, len (x :: l) = 1 + len l.
Proof. intros. unfold len. cbn [length]. lia. Qed.

Lemma len_app : forall T (a b : list T), len (a ++ b) = len a + len b.
Proof. intros. unfold len. rewrite app_length. lia. Qed.

Lemma firstn_len : forall T (a b : list T), firstn (N.to_nat (len a)) (a ++ b) = a.
Proof.
  intros. unfold len. rewrite Nnat.Nat2N.id, firstn_app, PeanoNat.Nat.sub_diag, firstn_all. cbn. apply app_nil_r.
Qed.

Lemma skipn_len : forall T (a b : list T), skipn (N.to_nat (len a)) (a ++ b) = b.
Proof. intros. unfold len. rewrite Nnat.Nat2N.id, skipn_app, PeanoNat.Nat.sub_diag, skipn_all. reflexivity. Qed.

Lemma len_permutation : forall T (a b : list T), Permutation a b -> len a = len b.
Proof. intros. unfold len. now rewrite (Permutation_length H). Qed.

(* ** UTF-8 *)

Ltac booleans :=
  repeat match goal with
    | H : _ && _ = true |- _ => apply andb_true_iff in H; destruct H
    | H : _ || _ = true |- _ => apply orb_true_iff in H
    | H : (_ <? _) = true |- _ => apply N.ltb_lt in H
    | H : (_ <? _) = false |- _ => apply N.ltb_ge in H
    | H : (_ <=? _) = true |- _ => apply N.leb_le in H
    | H : (_ <=? _) = false |- _ => apply N.leb_gt in H
    end.

Lemma encode_bytes : forall c, scalar c -> Forall byte (encode c).
Proof.
  intros c S. unfold scalar in S. unfold encode.
  repeat match goal with |- context [if ?a <? ?b then _ else _] => destruct (N.ltb_spec a b) end;
    repeat constructor; unfold byte; lia.
Qed.

Lemma encode_length : forall c, 1 <= len (encode c) <= 4.
Proof. intros c. unfold encode. repeat destruct (_ <? _); cbv; split; discriminate. Qed.

Ltac decide_tests :=
  repeat match goal with
    | |- context [?a <? ?b] =>
        first [ replace (a <? b) with true by (symmetry; apply N.ltb_lt; lia)
              | replace (a <? b) with false by (symmetry; apply N.ltb_ge; lia) ]
    | |- context [?a <=? ?b] =>
        first [ replace (a <=? b) with true by (symmetry; apply N.leb_le; lia)
              | replace (a <=? b) with false by (symmetry; apply N.leb_gt; lia) ]
    end.

Lemma decode_encode : forall c rest, scalar c -> decode (encode c ++ rest) = option_map (cons c) (decode rest).
Proof.
  intros c rest S. unfold scalar in S. unfold encode.
  destruct (N.ltb_spec c 0x80); [| destruct (N.ltb_spec c 0x800); [| destruct (N.ltb_spec c 0x10000)]];
    cbn [app decode]; unfold continuation.
  - decide_tests. reflexivity.
  - assert (E : c = c / 64 * 64 + c mod 64 /\ c mod 64 < 64) by lia.
    revert E. generalize (c / 64) (c mod 64). intros q r [E R].
    decide_tests. cbn [andb]. do 2 f_equal. lia.
  - assert (E : c = c / 4096 * 4096 + c / 64 mod 64 * 64 + c mod 64 /\ c / 64 mod 64 < 64 /\ c mod 64 < 64) by lia.
    revert E. generalize (c / 4096) (c / 64 mod 64) (c mod 64). intros q r1 r2 [E [R1 R2]].
    decide_tests. cbn [andb].
    replace ((0xE0 + q - 0xE0) * 4096 + (0x80 + r1 - 0x80) * 64 + (0x80 + r2 - 0x80)) with c by lia.
    decide_tests. destruct S; decide_tests; rewrite ?orb_true_r; reflexivity.
  - assert (E : c = c / 262144 * 262144 + c / 4096 mod 64 * 4096 + c / 64 mod 64 * 64 + c mod 64
      /\ c / 4096 mod 64 < 64 /\ c / 64 mod 64 < 64 /\ c mod 64 < 64) by lia.
    revert E. generalize (c / 262144) (c / 4096 mod 64) (c / 64 mod 64) (c mod 64). intros q r1 r2 r3 [E [R1 [R2 R3]]].
    decide_tests. cbn [andb].
    replace ((0xF0 + q - 0xF0) * 262144 + (0x80 + r1 - 0x80) * 4096 + (0x80 + r2 - 0x80) * 64 + (0x80 + r3 - 0x80))
      with c by lia.
    decide_tests. reflexivity.
Qed.

Lemma decode_as_bytes : forall s, text s -> decode (as_bytes s) = Some s.
Proof.
  induction s as [|c s IH]; intros S; [reflexivity|]. inversion S; subst. unfold as_bytes in *. cbn [flat_map].
  rewrite decode_encode by assumption. now rewrite IH.
Qed.

Lemma encode_2 : forall b0 b1, 0xC2 <= b0 < 0xE0 -> 0x80 <= b1 < 0xC0 ->
  encode ((b0 - 0xC0) * 64 + (b1 - 0x80)) = [b0; b1].
Proof. intros. unfold encode. decide_tests. repeat f_equal; lia. Qed.

Lemma encode_3 : forall b0 b1 b2 c, c = (b0 - 0xE0) * 4096 + (b1 - 0x80) * 64 + (b2 - 0x80) ->
  0xE0 <= b0 < 0xF0 -> 0x80 <= b1 < 0xC0 -> 0x80 <= b2 < 0xC0 -> 0x800 <= c -> encode c = [b0; b1; b2].
Proof. intros. unfold encode. decide_tests. repeat f_equal; lia. Qed.

Lemma encode_4 : forall b0 b1 b2 b3 c,
  c = (b0 - 0xF0) * 262144 + (b1 - 0x80) * 4096 + (b2 - 0x80) * 64 + (b3 - 0x80) ->
  0xF0 <= b0 < 0xF8 -> 0x80 <= b1 < 0xC0 -> 0x80 <= b2 < 0xC0 -> 0x80 <= b3 < 0xC0 -> 0x10000 <= c ->
  encode c = [b0; b1; b2; b3].
Proof. intros. unfold encode. decide_tests. repeat f_equal; lia. Qed.

Lemma as_bytes_decode_bounded : forall n bytes s, (length bytes <= n)%nat ->
  decode bytes = Some s -> as_bytes s = bytes /\ text s.
Proof.
  induction n as [|n IH]; intros bytes s L D.
  - destruct bytes; [|cbn in L; lia]. injection D as <-. now split; [|constructor].
  - assert (Step : forall c prefix rest, encode c = prefix -> scalar c -> (length rest <= n)%nat ->
      option_map (cons c) (decode rest) = Some s -> as_bytes s = prefix ++ rest /\ text s).
    { intros c prefix rest E S R M. destruct (decode rest) eqn:DR; [|discriminate]. injection M as <-.
      destruct (IH _ _ R DR) as [A T]. split; [|now constructor]. unfold as_bytes in *. cbn [flat_map]. congruence. }
    destruct bytes as [|b0 rest0]; [injection D as <-; now split; [|constructor]|].
    cbn [decode] in D. cbn [length] in L.
    destruct (b0 <? 0x80) eqn:B0.
    { booleans. apply (Step b0 [b0]); [unfold encode; now decide_tests | unfold scalar; lia | lia | exact D]. }
    destruct rest0 as [|b1 rest1]; [discriminate|]. cbn [length] in L.
    destruct ((0xC2 <=? b0) && (b0 <? 0xE0) && continuation b1) eqn:B1.
    { unfold continuation in B1. booleans.
      refine (Step _ [b0; b1] rest1 _ _ _ D); [apply encode_2; lia | unfold scalar; lia | lia]. }
    clear B1. destruct rest1 as [|b2 rest2]; [discriminate|]. cbn [length] in L. cbv zeta in D.
    match type of D with (if ?t then _ else _) = _ => destruct t eqn:B2 end.
    { unfold continuation in B2. booleans.
      refine (Step _ [b0; b1; b2] rest2 _ _ _ D);
        [eapply encode_3; [reflexivity|..]; lia
        | match goal with H : _ \/ _ |- _ => destruct H end; booleans; unfold scalar; lia
        | lia]. }
    clear B2. destruct rest2 as [|b3 rest3]; [discriminate|]. cbn [length] in L.
    match type of D with (if ?t then _ else _) = _ => destruct t eqn:B3 end; [|discriminate].
    unfold continuation in B3. booleans.
    refine (Step _ [b0; b1; b2; b3] rest3 _ _ _ D);
      [eapply encode_4; [reflexivity|..]; lia | unfold scalar; lia | lia].
Qed.

Lemma as_bytes_decode : forall bytes s, decode bytes = Some s -> as_bytes s = bytes /\ text s.
Proof. intros. now apply (as_bytes_decode_bounded (length bytes)). Qed.

Lemma as_bytes_injective : forall a b, text a -> text b -> as_bytes a = as_bytes b -> a = b.
Proof. intros a b A B E. apply decode_as_bytes in A, B. congruence. Qed.

Lemma as_bytes_length : forall s, len s <= len (as_bytes s) <= 4 * len s.
Proof.
  induction s as [|c s IH]; [rewrite ?len_nil; cbn; lia|].
  unfold as_bytes in *. cbn [flat_map]. rewrite len_app, len_cons. pose proof (encode_length c). lia.
Qed.

Lemma as_bytes_bytes : forall s, text s -> Forall byte (as_bytes s).
Proof.
  induction s as [|c s IH]; intros S; [constructor|]. inversion S; subst. unfold as_bytes in *. cbn [flat_map].
  apply Forall_app. split; [now apply encode_bytes | now apply IH].
Qed.

(* ** The order *)

Lemma compare_bytes_refl : forall a, compare_bytes a a = Eq.
Proof. induction a; cbn; [reflexivity|]. now rewrite N.compare_refl. Qed.

Lemma compare_bytes_eq : forall a b, compare_bytes a b = Eq -> a = b.
Proof.
  induction a as [|x a IH]; destruct b as [|y b]; cbn; try discriminate; [reflexivity|].
  destruct (N.compare_spec x y); try discriminate. intros E. f_equal; [assumption | now apply IH].
Qed.

Lemma compare_bytes_antisym : forall a b, compare_bytes b a = CompOpp (compare_bytes a b).
Proof.
  induction a as [|x a IH]; destruct b as [|y b]; cbn; try reflexivity.
  rewrite (N.compare_antisym x y). destruct (x ?= y); cbn; [apply IH | reflexivity | reflexivity].
Qed.

Lemma compare_bytes_trans : forall a b c, compare_bytes a b = Lt -> compare_bytes b c = Lt -> compare_bytes a c = Lt.
Proof.
  induction a as [|x a IH]; destruct b as [|y b], c as [|z c]; cbn; try discriminate; try reflexivity.
  destruct (N.compare_spec x y), (N.compare_spec y z); intros; subst; try discriminate;
    try (rewrite N.compare_refl; now apply IH with b);
    match goal with |- context [?a ?= ?b] => replace (a ?= b) with Lt by (symmetry; apply N.compare_lt_iff; lia) end;
    reflexivity.
Qed.

Definition key_lt (a b : Pair) : Prop := str_lt (fst a) (fst b) = true.

Lemma str_lt_trans : forall a b c, str_lt a b = true -> str_lt b c = true -> str_lt a c = true.
Proof.
  unfold str_lt, str_compare. intros a b c. destruct (compare_bytes (as_bytes a) _) eqn:A; try discriminate.
  destruct (compare_bytes (as_bytes b) _) eqn:B; try discriminate. now rewrite (compare_bytes_trans _ _ _ A B).
Qed.

Lemma str_lt_irrefl : forall a, str_lt a a = false.
Proof. intros. unfold str_lt, str_compare. now rewrite compare_bytes_refl. Qed.

Lemma str_lt_asym : forall a b, str_lt a b = true -> str_lt b a = false.
Proof.
  unfold str_lt, str_compare. intros a b. rewrite (compare_bytes_antisym (as_bytes a)).
  destruct (compare_bytes (as_bytes a) _); try discriminate; reflexivity.
Qed.

Lemma is_sorted_iff : forall pairs, is_sorted pairs = true <-> StronglySorted key_lt pairs.
Proof.
  induction pairs as [|[a av] pairs IH]; [now split; [constructor|]|].
  destruct pairs as [|[b bv] pairs].
  - split; [intros _; repeat constructor | reflexivity].
  - change (is_sorted ((a, av) :: (b, bv) :: pairs)) with (str_lt a b && is_sorted ((b, bv) :: pairs)).
    rewrite andb_true_iff, IH. split.
    + intros [L S]. constructor; [assumption|]. inversion S; subst. constructor; [exact L|].
      eapply Forall_impl; [|eassumption]. intros p P. exact (str_lt_trans _ _ _ L P).
    + intros S. inversion S as [|? ? S' F]; subst. inversion F; subst. now split.
Qed.

(* Strictly sorted lists of the same pairs are equal. So it does not matter how the pairs are sorted. *)
Lemma sorted_unique : forall p q, StronglySorted key_lt p -> StronglySorted key_lt q ->
  (forall x, In x p <-> In x q) -> p = q.
Proof.
  induction p as [|a p IH]; intros q P Q E.
  - destruct q as [|b q]; [reflexivity|]. destruct (proj2 (E b)). now left.
  - destruct q as [|b q]; [destruct (proj1 (E a)); now left|].
    inversion P as [|? ? P' PF]; inversion Q as [|? ? Q' QF]; subst. rewrite Forall_forall in PF, QF.
    assert (a = b) as <-.
    { destruct (proj1 (E a) (or_introl eq_refl)) as [|A]; [congruence|].
      destruct (proj2 (E b) (or_introl eq_refl)) as [|B]; [congruence|].
      specialize (PF _ B). specialize (QF _ A). unfold key_lt in *. apply str_lt_asym in PF. congruence. }
    f_equal. apply IH; try assumption. intros x. split; intros X.
    + destruct (proj1 (E x) (or_intror X)) as [<-|]; [|assumption].
      specialize (PF _ X). unfold key_lt in PF. rewrite str_lt_irrefl in PF. discriminate.
    + destruct (proj2 (E x) (or_intror X)) as [<-|]; [|assumption].
      specialize (QF _ X). unfold key_lt in QF. rewrite str_lt_irrefl in QF. discriminate.
Qed.

Lemma sorted_no_duplicate : forall pairs, StronglySorted key_lt pairs -> NoDup (map fst pairs).
Proof.
  induction pairs as [|a pairs IH]; intros S; [constructor|]. inversion S as [|? ? S' F]; subst. cbn. constructor.
  - intros I. apply in_map_iff in I. destruct I as [b [E I]]. rewrite Forall_forall in F. specialize (F _ I).
    unfold key_lt in F. rewrite E, str_lt_irrefl in F. discriminate.
  - now apply IH.
Qed.

Lemma no_duplicate_sorted : forall pairs, texts pairs -> NoDup (map fst pairs) -> Sorted key_le pairs ->
  StronglySorted key_lt pairs.
Proof.
  intros pairs T D S. apply is_sorted_iff. induction S as [|[a av] pairs S IH H]; [reflexivity|].
  inversion D as [|? ? A D']; inversion T as [|? ? [TA _] T']; subst. destruct pairs as [|[b bv] pairs]; [reflexivity|].
  change (str_lt a b && is_sorted ((b, bv) :: pairs) = true). apply andb_true_iff. split; [|exact (IH T' D')].
  inversion H as [|? ? L]; subst. inversion T' as [|? ? [TB _] _]; subst. cbn in TA, TB.
  unfold key_le, str_le in L. unfold str_lt. unfold str_compare in *. cbn [fst] in L.
  destruct (compare_bytes (as_bytes a) (as_bytes b)) eqn:C; [|reflexivity|discriminate].
  destruct A. apply compare_bytes_eq, as_bytes_injective in C; try assumption. subst. now left.
Qed.

(* ** Checks *)

Lemma check_pairs_iff : forall pairs room,
  check_pairs room pairs = Ok tt <-> Forall (fun pair => fst pair <> []) pairs /\ characters pairs <= room.
Proof.
  induction pairs as [|[key value] pairs IH]; intros room; cbn [check_pairs characters].
  - split; [intros _; split; [constructor | lia] | reflexivity].
  - unfold take_room. destruct key as [|c key].
    + split; [discriminate|]. intros [F _]. inversion F as [|? ? E _]; subst. now destruct E.
    + destruct (N.leb_spec (len (c :: key)) room).
      2: { split; [discriminate|]. intros [_ ?]. lia. }
      destruct (N.leb_spec (len value) (room - len (c :: key))).
      2: { split; [discriminate|]. intros [_ ?]. lia. }
      rewrite IH. split.
      * intros [F L]. split; [constructor; [discriminate | assumption] | lia].
      * intros [F L]. inversion F; subst. split; [assumption | lia].
Qed.

Lemma check_pairs_unit : forall room pairs x, check_pairs room pairs = Ok x -> check_pairs room pairs = Ok tt.
Proof. intros room pairs []. trivial. Qed.

Lemma characters_permutation : forall p q, Permutation p q -> characters p = characters q.
Proof.
  induction 1 as [|[a v] p q _ IH|[a v] [b w] p|]; cbn [characters]; lia.
Qed.

Lemma at_least_one_character : forall pairs, Forall (fun pair => fst pair <> []) pairs -> len pairs <= characters pairs.
Proof.
  induction 1 as [|[key value] pairs K _ IH]; cbn [characters]; rewrite ?len_nil, ?len_cons; [lia|].
  destruct key; [now destruct K|]. rewrite len_cons. lia.
Qed.

Lemma A3_permutation : forall p q, Permutation p q -> A3 p -> A3 q.
Proof.
  intros p q P [K [D C]]. repeat split.
  - now rewrite <- P.
  - now apply (Permutation_NoDup (Permutation_map fst P)).
  - now rewrite <- (characters_permutation _ _ P).
Qed.

Lemma texts_permutation : forall p q, Permutation p q -> texts p -> texts q.
Proof. unfold texts. intros p q P T. now rewrite <- P. Qed.

(* ** Writing *)

Lemma put_length_small : forall n, n < 65536 -> put_length n = Ok [n / 256; n mod 256].
Proof. intros. unfold put_length. now decide_tests. Qed.

Lemma put_length_ok : forall n bytes, put_length n = Ok bytes -> n < 65536 /\ bytes = [n / 256; n mod 256].
Proof. unfold put_length. intros n bytes. destruct (N.ltb_spec n 65536); [|discriminate]. now intros [= <-]. Qed.

Lemma put_pairs_total : forall pairs, characters pairs <= 8192 ->
  exists bytes, put_pairs pairs = Ok bytes /\ len bytes <= 4 * len pairs + 4 * characters pairs.
Proof.
  induction pairs as [|[key value] pairs IH]; cbn [put_pairs characters]; intros L.
  - exists []. split; [reflexivity | cbv; discriminate].
  - pose proof (as_bytes_length key). pose proof (as_bytes_length value).
    rewrite !put_length_small by lia. destruct IH as [rest [-> R]]; [lia|].
    eexists. split; [reflexivity|]. rewrite !len_app, !len_cons, len_nil. lia.
Qed.

Lemma put_pairs_bytes : forall pairs bytes, texts pairs -> put_pairs pairs = Ok bytes -> Forall byte bytes.
Proof.
  induction pairs as [|[key value] pairs IH]; cbn [put_pairs]; intros bytes T P.
  - injection P as <-. constructor.
  - inversion T as [|? ? [K V] T']; subst. cbn in K, V.
    destruct (put_length (len (as_bytes key))) eqn:LK; [|discriminate].
    destruct (put_length (len (as_bytes value))) eqn:LV; [|discriminate].
    destruct (put_pairs pairs) eqn:R; [|discriminate]. injection P as <-.
    apply put_length_ok in LK, LV. destruct LK as [? ->], LV as [? ->].
    rewrite !Forall_app. repeat split; try now apply as_bytes_bytes.
    + repeat constructor; unfold byte; lia.
    + repeat constructor; unfold byte; lia.
    + now apply IH.
Qed.

(* ** Reading *)

Lemma read_length_be : forall n rest, read_length ([n / 256; n mod 256] ++ rest) = Some (n, rest).
Proof. intros. unfold read_length. cbn [app]. do 2 f_equal. lia. Qed.

Lemma read_text_written : forall s rest, text s -> len (as_bytes s) < 65536 ->
  read_text ([len (as_bytes s) / 256; len (as_bytes s) mod 256] ++ as_bytes s ++ rest) = Some (s, rest).
Proof.
  intros s rest T L. unfold read_text. rewrite read_length_be.
  replace (len (as_bytes s ++ rest) <? len (as_bytes s)) with false
    by (symmetry; apply N.ltb_ge; rewrite len_app; lia).
  now rewrite firstn_len, decode_as_bytes, skipn_len.
Qed.

Lemma read_pairs_written : forall pairs bytes, texts pairs -> put_pairs pairs = Ok bytes ->
  read_pairs (length pairs) bytes = Some pairs.
Proof.
  induction pairs as [|[key value] pairs IH]; cbn [put_pairs length read_pairs]; intros bytes T P.
  - now injection P as <-.
  - inversion T as [|? ? [K V] T']; subst. cbn in K, V.
    destruct (put_length (len (as_bytes key))) eqn:LK; [|discriminate].
    destruct (put_length (len (as_bytes value))) eqn:LV; [|discriminate].
    destruct (put_pairs pairs) eqn:R; [|discriminate]. injection P as <-.
    apply put_length_ok in LK, LV. destruct LK as [? ->], LV as [? ->].
    rewrite read_text_written by assumption. rewrite read_text_written by assumption. now rewrite IH.
Qed.

Lemma read_length_bytes : forall bytes n rest, Forall byte bytes -> read_length bytes = Some (n, rest) ->
  put_length n = Ok [n / 256; n mod 256] /\ bytes = [n / 256; n mod 256] ++ rest /\ Forall byte rest.
Proof.
  intros bytes n rest B R. destruct bytes as [|high [|low bytes]]; try discriminate.
  assert (E : (256 * high + low, bytes) = (n, rest)) by (unfold read_length in R; congruence). clear R.
  apply pair_equal_spec in E. destruct E as [<- <-].
  inversion B as [|? ? H B']; subst. inversion B' as [|? ? L B'']; subst.
  unfold byte in H, L. split; [apply put_length_small; lia | split; [|assumption]].
  assert (E : high = (256 * high + low) / 256 /\ low = (256 * high + low) mod 256) by lia.
  destruct E as [<- <-]. reflexivity.
Qed.

Lemma read_text_bytes : forall bytes s rest, Forall byte bytes -> read_text bytes = Some (s, rest) ->
  text s /\ Forall byte rest /\ exists length, put_length (len (as_bytes s)) = Ok length /\
  bytes = length ++ as_bytes s ++ rest.
Proof.
  intros bytes s rest B R. unfold read_text in R. destruct (read_length bytes) as [[n after]|] eqn:L; [|discriminate].
  destruct (N.ltb_spec (len after) n) as [|Enough]; [discriminate|].
  destruct (decode _) as [found|] eqn:D; [|discriminate]. injection R as -> <-.
  apply as_bytes_decode in D. destruct D as [D T].
  destruct (read_length_bytes _ _ _ B L) as [P [-> F]].
  rewrite <- (firstn_skipn (N.to_nat n) after) in F. apply Forall_app in F.
  assert (len (as_bytes s) = n) as E by (rewrite D; unfold len in *; rewrite firstn_length; lia).
  split; [assumption|]. split; [apply F|]. exists [n / 256; n mod 256]. rewrite E. split; [assumption|].
  now rewrite D, firstn_skipn.
Qed.

Lemma put_pairs_read : forall count bytes pairs, Forall byte bytes -> read_pairs count bytes = Some pairs ->
  put_pairs pairs = Ok bytes /\ texts pairs /\ length pairs = count.
Proof.
  induction count as [|count IH]; cbn [read_pairs]; intros bytes pairs B R.
  - destruct bytes; [|discriminate]. injection R as <-. repeat split. constructor.
  - destruct (read_text bytes) as [[key after]|] eqn:K; [|discriminate].
    destruct (read_text after) as [[value rest]|] eqn:V; [|discriminate].
    destruct (read_pairs count rest) as [others|] eqn:P; [|discriminate]. injection R as <-.
    destruct (read_text_bytes _ _ _ B K) as [TK [BA [lk [LK ->]]]].
    destruct (read_text_bytes _ _ _ BA V) as [TV [BR [lv [LV ->]]]].
    destruct (IH _ _ BR P) as [W [T N]]. cbn [put_pairs length]. rewrite LK, LV, W.
    repeat split; [now constructor | now f_equal].
Qed.

(* * Theorems *)

(* `put_length` never fails: pairs that pass the checks always have a canonical form. *)
Theorem of_succeeds_iff : forall pairs, texts pairs -> (exists canonical, of pairs = Ok canonical) <-> A3 pairs.
Proof.
  intros pairs T. unfold of, checked. split.
  - intros [canonical O]. destruct (check_pairs MAX_CHARACTERS pairs) as [x|] eqn:C; [|discriminate].
    apply check_pairs_unit, check_pairs_iff in C. destruct (is_sorted (sort pairs)) eqn:S; [|discriminate].
    apply is_sorted_iff, sorted_no_duplicate in S.
    destruct C as [K C]. split; [exact K | split; [|exact C]].
    eapply Permutation_NoDup; [|exact S]. apply Permutation_map, Permutation_sym, sort_permutes.
  - intros [K [D C]]. rewrite (proj2 (check_pairs_iff pairs MAX_CHARACTERS) (conj K C)).
    replace (is_sorted (sort pairs)) with true.
    2: { symmetry. apply is_sorted_iff, no_duplicate_sorted.
         - eapply texts_permutation; [apply sort_permutes | assumption].
         - eapply Permutation_NoDup; [apply Permutation_map, sort_permutes | assumption].
         - apply sort_sorts. }
    destruct (sort pairs) as [|first rest] eqn:S; [now eexists|].
    assert (P := sort_permutes pairs). rewrite S in P.
    rewrite (characters_permutation _ _ P) in C.
    assert (len (first :: rest) <= 8192).
    { eapply N.le_trans; [apply at_least_one_character | exact C]. now rewrite <- P. }
    rewrite put_length_small by lia.
    destruct (put_pairs_total _ C) as [bytes [-> _]]. now eexists.
Qed.

(* The canonical form has at most 65,538 bytes, and they are bytes. *)
Theorem of_bounded : forall pairs canonical, texts pairs -> of pairs = Ok canonical ->
  len canonical <= MAX_CANONICAL /\ Forall byte canonical.
Proof.
  intros pairs canonical T O. assert (A := proj1 (of_succeeds_iff pairs T) (ex_intro _ _ O)).
  apply (A3_permutation _ _ (sort_permutes pairs)) in A. destruct A as [K [_ C]].
  apply (texts_permutation _ _ (sort_permutes pairs)) in T.
  unfold of, checked in O. destruct (check_pairs MAX_CHARACTERS pairs); [|discriminate].
  destruct (is_sorted (sort pairs)); [|discriminate].
  destruct (sort pairs) as [|first rest]; [injection O as <-; split; [cbv; discriminate | constructor]|].
  assert (Few := at_least_one_character _ K). rewrite put_length_small in O by lia.
  destruct (put_pairs_total _ C) as [bytes [W L]]. rewrite W in O. injection O as <-.
  split.
  - rewrite !len_cons. unfold MAX_CANONICAL, MAX_CHARACTERS, LENGTHS. lia.
  - repeat (constructor; [unfold byte; lia|]). now apply (put_pairs_bytes _ _ T).
Qed.

(* What was written can be read: the pairs come back, in the order of their keys. *)
Theorem read_of : forall pairs canonical, texts pairs -> of pairs = Ok canonical ->
  read canonical = Some (sort pairs) /\ Permutation pairs (sort pairs).
Proof.
  intros pairs canonical T O. split; [|apply sort_permutes].
  assert (A := proj1 (of_succeeds_iff pairs T) (ex_intro _ _ O)).
  apply (A3_permutation _ _ (sort_permutes pairs)) in A. destruct A as [K [_ C]].
  apply (texts_permutation _ _ (sort_permutes pairs)) in T.
  unfold of, checked in O. destruct (check_pairs MAX_CHARACTERS pairs); [|discriminate].
  destruct (is_sorted (sort pairs)) eqn:S; [|discriminate].
  destruct (sort pairs) as [|first rest]; [now injection O as <-|].
  assert (Few := at_least_one_character _ K). rewrite put_length_small in O by lia.
  destruct (put_pairs_total _ C) as [bytes [W _]]. rewrite W in O. injection O as <-.
  unfold read. change (?a :: ?b :: bytes) with ([a; b] ++ bytes). rewrite read_length_be.
  unfold len. rewrite Nnat.Nat2N.id. rewrite (read_pairs_written _ _ T W).
  rewrite (proj2 (check_pairs_iff (first :: rest) MAX_CHARACTERS)) by (split; assumption). now rewrite S.
Qed.

(* Only canonical bytes can be read: writing what was read gives the same bytes. *)
Theorem of_read : forall canonical pairs, Forall byte canonical -> read canonical = Some pairs ->
  of pairs = Ok canonical /\ texts pairs /\ A3 pairs.
Proof.
  intros canonical pairs B R.
  assert (of [] = Ok []) as Empty.
  { unfold of, checked. cbn [check_pairs]. assert (P := sort_permutes []). apply Permutation_nil in P. now rewrite P. }
  enough (of pairs = Ok canonical /\ texts pairs) as [O T].
  { repeat split; try assumption; now apply (of_succeeds_iff pairs T); exists canonical. }
  destruct canonical as [|b canonical]; [injection R as <-; now split; [|constructor]|].
  unfold read in R. destruct (read_length (b :: canonical)) as [[count rest]|] eqn:L; [|discriminate].
  destruct (read_pairs (N.to_nat count) rest) as [[|first others]|] eqn:P; try discriminate.
  destruct (check_pairs MAX_CHARACTERS (first :: others)) as [x|] eqn:C; [|discriminate].
  destruct (is_sorted (first :: others)) eqn:S; [|discriminate]. injection R as <-.
  destruct (read_length_bytes _ _ _ B L) as [W [-> BR]].
  destruct (put_pairs_read _ _ _ BR P) as [WP [T Count]].
  split; [|assumption]. unfold of, checked. rewrite C.
  assert (sort (first :: others) = first :: others) as ->.
  { assert (F := proj1 (is_sorted_iff _) S). apply sorted_unique; try assumption.
    - apply no_duplicate_sorted; [| |apply sort_sorts].
      + eapply texts_permutation; [apply sort_permutes | assumption].
      + eapply Permutation_NoDup; [apply Permutation_map, sort_permutes | now apply sorted_no_duplicate].
    - intros y. split; apply Permutation_in; [apply Permutation_sym|]; apply sort_permutes. }
  rewrite S.
  replace (len (first :: others)) with count by (unfold len; rewrite Count; now rewrite Nnat.N2Nat.id).
  now rewrite W, WP.
Qed.

(* Two contexts with the same canonical form are the same map. *)
Theorem of_injective : forall p q canonical, texts p -> texts q -> of p = Ok canonical -> of q = Ok canonical ->
  Permutation p q.
Proof.
  intros p q canonical P Q OP OQ. apply read_of in OP, OQ; try assumption.
  destruct OP as [RP SP], OQ as [RQ SQ]. rewrite RP in RQ. injection RQ as E.
  rewrite E in SP. exact (Permutation_trans SP (Permutation_sym SQ)).
Qed.

(* The same map, in any order, has the same canonical form. *)
Theorem of_unordered : forall p q canonical, texts p -> Permutation p q -> of p = Ok canonical -> of q = Ok canonical.
Proof.
  intros p q canonical T P O. assert (TQ := texts_permutation _ _ P T).
  assert (A := proj1 (of_succeeds_iff p T) (ex_intro _ _ O)).
  destruct (proj2 (of_succeeds_iff q TQ) (A3_permutation _ _ P A)) as [other OQ]. rewrite OQ. f_equal.
  assert (sort p = sort q) as E.
  { assert (forall r, texts r -> A3 r -> StronglySorted key_lt (sort r)) as S.
    { intros r TR [_ [D _]]. apply no_duplicate_sorted; [| |apply sort_sorts].
      - eapply texts_permutation; [apply sort_permutes | assumption].
      - eapply Permutation_NoDup; [apply Permutation_map, sort_permutes | assumption]. }
    apply sorted_unique; [now apply S | apply S; [assumption | now apply (A3_permutation _ _ P)] |].
    assert (Permutation (sort p) (sort q)) as PS.
    { eapply Permutation_trans; [apply Permutation_sym, sort_permutes|].
      eapply Permutation_trans; [exact P | apply sort_permutes]. }
    intros x. split; apply Permutation_in; [|apply Permutation_sym]; exact PS. }
  unfold of, checked in O, OQ. rewrite E in O.
  destruct (check_pairs MAX_CHARACTERS p); [|discriminate]. destruct (check_pairs MAX_CHARACTERS q); [|discriminate].
  rewrite O in OQ. congruence.
Qed.

(* Collecting refuses only what the checks refuse, and with the same error or that of an earlier pair. *)
Theorem from_pairs_succeeds_iff : forall pairs, texts pairs ->
  (exists canonical, from_pairs pairs = Ok canonical) <-> A3 pairs.
Proof.
  intros pairs T. unfold from_pairs, collect. rewrite <- of_succeeds_iff by assumption.
  destruct (N.leb_spec (len pairs) MAX_CHARACTERS) as [|L]; [reflexivity|].
  split; [intros [? ?]; discriminate|]. intros E. apply of_succeeds_iff in E; [|assumption]. destruct E as [K [_ C]].
  apply at_least_one_character in K. unfold MAX_CHARACTERS in L. lia.
Qed.

Theorem from_pairs_of : forall pairs canonical, texts pairs ->
  from_pairs pairs = Ok canonical <-> of pairs = Ok canonical.
Proof.
  intros pairs canonical T. assert (F := from_pairs_succeeds_iff pairs T).
  rewrite <- of_succeeds_iff in F by assumption.
  unfold from_pairs, collect in *. destruct (len pairs <=? MAX_CHARACTERS); [reflexivity|].
  split; [discriminate|]. intros O. destruct (proj2 F (ex_intro _ _ O)). discriminate.
Qed.

End Sort.
