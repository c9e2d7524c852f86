// What the page's starter calls when training is asked for.
import { Laboratory } from "./laboratory.js";
import { quantity } from "./quantities.js";
import { TrainHere } from "./train_here.js";

globalThis.bnbTraining = { Laboratory, TrainHere, quantity };
