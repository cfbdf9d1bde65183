(* Reads one context on each line, and writes its canonical form in hex, or the rule that it breaks. A context is a list
   of texts, keys and values in turn, with "/" after each; a text is a list of characters, as numbers. *)

let rec pairs = function
  | key :: value :: rest -> (key, value) :: pairs rest
  | [] -> []
  | [ _ ] -> failwith "a key without a value"

let text characters =
  List.filter_map
    (fun number -> if number = "" then None else Some (int_of_string number))
    (String.split_on_char ' ' characters)

let context line =
  match List.rev (String.split_on_char '/' line) with
  | "" :: texts -> pairs (List.rev_map text texts)
  | _ -> failwith "a text without an end"

let () =
  try
    while true do
      let context = context (read_line ()) in
      match Model.canonical context with
      | Model.Ok canonical ->
          (* Reading gives the pairs back. *)
          let by_key = List.sort compare in
          (match Model.read canonical with
          | Some found when by_key found = by_key context -> ()
          | _ -> failwith "it cannot be read");
          List.iter (Printf.printf "%02x") canonical;
          print_newline ()
      | Model.Err Model.EmptyKey -> print_endline "EmptyKey"
      | Model.Err Model.DuplicateKey -> print_endline "DuplicateKey"
      | Model.Err Model.TooManyCharacters -> print_endline "TooManyCharacters"
    done
  with End_of_file -> ()
